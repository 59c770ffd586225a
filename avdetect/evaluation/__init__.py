"""What a model can do, measured by group. Needs scikit-learn (`pip install 'avdetect[train]'`)."""
