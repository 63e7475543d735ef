"""Autofocus compared: trials, the microscope they run on, every method, figures and plots.

Lengths are counted in half depths of field, p / alpha: the defocus that adds half a pixel (standard
deviation) of blur. Working distances are relative to where a trial starts.
"""

import os

# As in every process of `semagent run`; numpy, which is loaded after this, reads it once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
