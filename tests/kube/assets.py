"""Where the programs of a Kubernetes cluster come from, in this order:

1. KUBEBUILDER_ASSETS, the variable of envtest and kubebuilder: a folder with etcd, kube-apiserver and kubectl;
2. the cache that `build.sh` fills (~/.cache/spillway-kube), one folder for each set of inputs;
3. `go build`, minutes for the first time; `make kube-assets` does it in the open, before any test waits for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
Program = Literal["kubebin", "coredns", "pause"]


class Unavailable(Exception):
    """What a tier of tests needs is not on this machine, and nobody asked for it: a reason to skip, except on CI."""


@cache
def folder_of(program: Program = "kubebin") -> Path:
    """The folder that holds a program, built when it must be and can be.

    Raises Unavailable where there is neither a built one nor Go, and CalledProcessError when a build fails.
    """
    # What is in the cache is printed at once, with or without Go.
    done = subprocess.run([str(HERE / "build.sh"), program], stdout=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return Path(done.stdout.strip())
    if shutil.which("go") is None and not os.environ.get("KUBEBUILDER_ASSETS"):
        raise Unavailable(f"no {program} here: install Go and run `make kube-assets`, or set KUBEBUILDER_ASSETS")
    raise subprocess.CalledProcessError(done.returncode, done.args)
