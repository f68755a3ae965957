"""What the client Pod's requests came to, cut into phases: each test looks at those that ended in its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.kube.access import until

LEAST_RATE = 3.0
"""Requests a second below which there was no steady load to speak of: the machine may be a slow one, or busy."""


class Answered(NamedTuple):
    """One request of the client's."""

    model: str
    stream: bool
    at: float
    """Unix time."""
    took: float
    """Seconds."""
    first: float | None
    """Seconds to the first content of a stream."""
    error: str | None
    """None when it came to its proper end."""

    @property
    def ended(self) -> float:
        return self.at + self.took

    @property
    def cut(self) -> bool:
        """Broken off after content had come, and the client was told so by an event in the stream.

        That is how the SDK raises an error event: APIError itself, while each other failure is of a class below it.
        """
        return self.error is not None and self.first is not None and self.error.startswith("APIError: ")

    @property
    def failed(self) -> bool:
        return self.error is not None and not self.cut


class Phase:
    """The requests that ended in a stretch of time."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = began
        self.requests: list[Answered] = []

    @property
    def failures(self) -> list[Answered]:
        return [each for each in self.requests if each.failed]

    @property
    def cut(self) -> list[Answered]:
        return [each for each in self.requests if each.cut]

    def figures(self, what: str) -> str:
        """One line for people."""
        waits = sorted(each.first if each.first is not None else each.took for each in self.requests if not each.error)
        p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))] if waits else float("nan")
        streams = sum(each.stream for each in self.requests)
        seconds = self.ended - self.began
        return (
            f"{what}: {len(self.requests)} requests in {seconds:.0f} s ({streams} streams), "
            f"{len(self.failures)} failed, {len(self.cut)} cut after first content, "
            f"p99 of time to first content {p99 * 1000:.0f} ms"
        )

    def check(self, what: str, *, cut: int = 0) -> None:
        """Prints the figures. Nothing may have failed; at most `cut` streams may have been cut."""
        line = self.figures(what)
        print(line)
        assert not self.failures, (
            f"{line}\n"
            + "\n".join(
                f"{n} times {error}" for error, n in Counter(str(each.error) for each in self.failures).most_common(8)
            )
            + f"\nfirst: {self.failures[:3]}"
        )
        assert len(self.cut) <= cut, f"{line}\n{self.cut[:3]}"
        assert len(self.requests) >= LEAST_RATE * (self.ended - self.began), line
        assert any(each.stream for each in self.requests), line


class Load:
    """The client's output; `read` fetches all of it."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    @contextlib.contextmanager
    def phase(self, linger: float = 1.0) -> Iterator[Phase]:
        """What ends within the block, and `linger` seconds behind it. Waits until all of that is known."""
        phase = Phase(time.time())
        yield phase
        time.sleep(linger)
        phase.ended = time.time()
        until(lambda: any(each.at > phase.ended for each in self.all()), "requests behind the phase's end", 30.0)
        phase.requests = [each for each in self.all() if phase.began <= each.ended <= phase.ended]

    def all(self) -> list[Answered]:
        lines = self._read().splitlines(keepends=True)
        return [Answered(**json.loads(line)) for line in lines if line.startswith("{") and line.endswith("\n")]
