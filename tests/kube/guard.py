"""Runs a program that ends when its parent does, also when the parent is killed: guard.py PARENT PROGRAM ARGUMENT...

Instead of Popen's preexec_fn, which must not be used beside threads.
"""

import ctypes
import os
import signal
import sys

parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; kept across exec
    if os.getppid() != int(parent):  # it has ended before it could be told to the kernel
        sys.exit(1)
os.execv(command[0], command)  # noqa: S606
