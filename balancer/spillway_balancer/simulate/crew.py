"""Runs in several processes, their outcomes in the order asked for: the same, however many there are."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Final, Self

from .runs import Bench, Done, Experiment, Task

POLL: Final = 0.2
"""Seconds between two looks at how far the runs are."""

_bench: Bench | None = None  # of this process, where it is one of several


class Crew:
    """`jobs` processes for one experiment. With 1 everything happens here.

    `progress` is told how many tasks of the batch are done, how many there are, and how many requests have been
    simulated since the beginning. Use it as a context manager.
    """

    def __init__(self, experiment: Experiment, jobs: int, progress: Callable[[int, int, int], None]) -> None:
        self._progress = progress
        self._requests = 0
        self._bench: Bench | None = None
        self._processes: ProcessPoolExecutor | None = None
        self._counter: Synchronized[int] | None = None
        self._batch = (0, 0)
        if jobs == 1:
            self._bench = Bench(experiment, self._tick)
            return
        # Fresh processes: forking one with threads (the progress display has some) is not safe.
        context = multiprocessing.get_context("spawn")
        self._counter = context.Value("q", 0)
        self._processes = ProcessPoolExecutor(jobs, context, _begin, (experiment, self._counter))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)

    def do(self, tasks: Sequence[Task]) -> list[Done]:
        if self._bench is not None:
            done = []
            for number, task in enumerate(tasks):
                self._batch = number, len(tasks)
                self._progress(*self._batch, self._requests)
                done.append(self._bench.do(task))
            self._progress(len(tasks), len(tasks), self._requests)
            return done
        assert self._processes is not None
        assert self._counter is not None
        futures = [self._processes.submit(_do, task) for task in tasks]
        left = set(futures)
        while left:
            finished, left = wait(left, POLL, FIRST_COMPLETED)
            for future in finished:
                future.result()  # what went wrong there is raised here at once
            self._progress(len(futures) - len(left), len(futures), self._counter.value)
        return [future.result() for future in futures]

    def _tick(self, requests: int) -> None:
        self._requests += requests
        self._progress(*self._batch, self._requests)


def _begin(experiment: Experiment, counter: Synchronized[int]) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ^C ends the whole group, without a traceback from each

    def tick(requests: int) -> None:
        with counter.get_lock():
            counter.value += requests

    _bench = Bench(experiment, tick)


def _do(task: Task) -> Done:
    assert _bench is not None
    return _bench.do(task)
