"""To be imported before NumPy, SciPy, OpenCV and torch, which read this then.

What the tests ask of them is small: a second thread of theirs mostly waits, and burns the core of another worker of
pytest-xdist. It took three quarters of the time of a fusion's fit.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ.setdefault(_name, "1")
