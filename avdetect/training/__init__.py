"""Training of the streams and of the fusion. Needs torch and Lightning (`pip install 'avdetect[train]'`)."""
