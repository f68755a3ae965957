"""The folders of the sources hold one package each and are none themselves: `operator` is the standard library's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["crds", "balancer", "operator"])
def test_no_source_root_is_a_package(folder):
    """From 3.12 on it would shadow the standard library's operator for whatever runs in the repository's root."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("arguments", [["-c", "import operator"], ["-m", "operator"]])
def test_operator_is_the_standard_librarys_in_the_root_of_the_repository(arguments):
    if arguments[0] == "-c":
        arguments = ["-c", "import operator; print(operator.itemgetter(0)('x'), operator.__file__)"]
    environment = {**os.environ, "PYTHONSAFEPATH": ""}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if done.stdout:
        letter, file = done.stdout.split()
        assert letter == "x"
        assert not Path(file).is_relative_to(ROOT / "operator")


def test_operator_and_balancer_are_different_processes():
    """What the one is made of is not loaded by the other: an image holds only its own libraries."""
    code = (
        "import sys, spillway_operator.app; "
        "print([name for name in sys.modules if name.startswith(('spillway_balancer', 'uvloop', 'uhashring'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
