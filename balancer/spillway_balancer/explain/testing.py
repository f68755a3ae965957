"""`spillway test`: plays cases against policies, and says what is not as expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from spillway_api.files import SUFFIXES

from .cases import Cases
from .document import Read, Unusable, read
from .given import PoolGiven, State
from .judging import Judge, Judgement
from .report import lines
from .world import Policies

MET: Final = 0
NOT_MET: Final = 1


def run_test(
    *,
    policies: Sequence[Path],
    cases: Sequence[Path],
    gateway: str,
    secrets: Path | None,
    prices: Path | None = None,
    verbose: bool,
    junit: Path | None,
) -> int:
    """The exit code: 0 where all is as expected, else 1. Raises Unusable where files are wrong; OSError where the
    report cannot be written."""
    files = _read(cases)
    compiled = Policies(policies, gateway, secrets, _assumed(files), prices)
    judge = Judge(compiled)
    if slips := [slip for file in files for slip in judge.slips(file)]:
        raise Unusable(*slips)
    console = Console(highlight=False, soft_wrap=True)
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    for note in compiled.notes:
        screen.print(Text(f"note: {note}"))
    played: list[Judgement] = []
    for file in files:
        for judgement in judge.play(file):
            played.append(judgement)
            _say(console, judgement, verbose)
    failed = sum(bool(each.differences) for each in played)
    told = "1 case" if len(played) == 1 else f"{len(played)} cases"
    console.print(Text(f"{told}: {'all as expected' if not failed else f'{failed} not as expected'}", "bold"))
    if junit is not None:
        junit.write_text(_junit(played), encoding="utf-8")
    return NOT_MET if failed else MET


def _read(paths: Sequence[Path]) -> list[Read[Cases]]:
    """All files, with the problems of all of them."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise Unusable(f"{path}: holds no {', '.join('*' + suffix for suffix in SUFFIXES)} file")
        files += inside
    found: list[Read[Cases]] = []
    wrong: list[str] = []
    for file in files:
        try:
            found.append(read(file, Cases))
        except Unusable as error:
            wrong += error.lines
    if wrong:
        raise Unusable(*wrong)
    return found


def _assumed(files: Sequence[Read[Cases]]) -> State:
    """Every endpoint that is spoken of, for pools whose own are known in a cluster only."""
    pools: dict[str, PoolGiven] = {}
    for state in (each for file in files for each in (file.value.state, *(case.state for case in file.value.cases))):
        for name, given in state.pools.items():
            before = pools.get(name, PoolGiven())
            ready = max((each for each in (before.ready, given.ready) if each is not None), default=None)
            pools[name] = PoolGiven(ready=ready, endpoints={**before.endpoints, **given.endpoints})
    return State(pools=pools)


def _say(console: Console, judgement: Judgement, verbose: bool) -> None:
    if not judgement.differences:
        console.print(Text(f"ok    {judgement.case.name}", "green"))
        return
    console.print(Text(f"FAIL  {judgement.case.name}", "bold red"))
    for difference in judgement.differences:
        console.print(Text(f"      {difference}"))
    if verbose:
        for line in lines(judgement.account):
            console.print(Text(f"      | {line.text}".rstrip(), line.style))
    elif judgement.account.header:
        console.print(Text(f"      {judgement.account.header}", "dim"))


def _junit(played: Sequence[Judgement]) -> str:
    """As CI systems read it: one suite, a test case for each case."""
    failed = sum(bool(each.differences) for each in played)
    suite = ElementTree.Element("testsuite", name="spillway test", tests=str(len(played)), failures=str(failed))
    for each in played:
        file = each.place.rsplit(":", 2)[0]
        case = ElementTree.SubElement(suite, "testcase", name=each.case.name, classname=file)
        if each.differences:
            failure = ElementTree.SubElement(case, "failure", message=each.differences[0])
            failure.text = "\n".join((*each.differences, *(line.text for line in lines(each.account))))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
