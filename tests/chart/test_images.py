"""What goes into the images: lock files that agree, and Containerfiles that keep their promises as far as text can."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from tests.chart.value_sets import ROOT

LOCKS = ["requirements.lock", "balancer/requirements.lock", "operator/requirements.lock", "balancer/build.lock"]
PARTS = ["balancer", "operator"]


def pins(name):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") >= text.count("==")
    return dict(re.findall(r"^([a-z0-9_.-]+)(?:\[.*?\])?==([^\s;]+)", text, re.MULTILINE))


def test_lock_files_agree_on_every_version():
    everything = pins("requirements.lock")
    for name in LOCKS:
        assert pins(name).items() <= everything.items(), f"{name}: run `make lock`"


def test_the_balancers_image_holds_neither_kopf_nor_the_kubernetes_client():
    balancer, operator = pins("balancer/requirements.lock"), pins("operator/requirements.lock")
    assert not {"kopf", "kubernetes", "cryptography", "pytest"} & balancer.keys()
    assert {"kopf", "kubernetes", "cryptography"} <= operator.keys()
    assert "pytest" not in operator
    assert balancer.items() <= operator.items()


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash(name):
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text().strip()):
        assert re.match(r"[a-z0-9_.-]+(\[.*?\])?==", block), block
        assert "--hash=sha256:" in block, block


def stages(part):
    text = (ROOT / part / "Containerfile").read_text()
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#"))).splitlines()
    found = []
    for line in filter(None, lines):
        if line.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(line)
    return text, found


@pytest.mark.parametrize("part", PARTS)
def test_containerfiles_pin_what_they_install_and_end_without_a_user_or_pip(part):
    text, found = stages(part)
    assert len(found) == 2
    assert re.search(r"^ARG PYTHON=python:3\.\d+-slim$", text, re.MULTILINE)
    for line in found[0]:
        for install in re.findall(r"pip\b[^&]*\binstall\b[^&]*", line):
            assert "--require-hashes" in install or "--no-index" in install
    last = found[1]
    assert not any("pip install" in line or "apt" in line for line in last)
    assert "USER 65532:65532" in last
    assert any(line.startswith("RUN rm -rf") and "pip" in line for line in last)
    program = {"balancer": "spillway", "operator": "spillway-operator"}[part]
    assert last[-1] == f'ENTRYPOINT ["{program}"]'


@pytest.mark.parametrize("part", PARTS)
def test_containerfiles_copy_what_is_there_and_let_through_by_the_ignore_file(part):
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_through = [rule[1:] for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    copied = [
        source
        for line in stages(part)[1][0]
        if line.startswith("COPY ")
        for source in line.removeprefix("COPY ").split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, rule) for rule in let_through), source
    other = {"balancer": "operator/spillway_operator", "operator": "balancer/spillway_balancer"}[part]
    assert other not in copied


@pytest.mark.parametrize("part", PARTS)
def test_images_hold_bytecode_of_the_parts_of_pythons_library_that_are_used(part):
    last = stages(part)[1][1]
    (warm,) = (line for line in last if " -c 'import " in line)
    (settings,) = (line for line in last if "PYTHONDONTWRITEBYTECODE=1" in line)
    assert last.index(warm) < last.index(settings)
    assert last.index(warm) < last.index("USER 65532:65532")  # who may write there
    code = warm.split("'")[1]
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
