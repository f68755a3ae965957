"""How far the engine timing model is from what others have measured and published, figure by figure.

Each row is a published figure with its source, the setting it was measured in, and the same setting played through
`EngineTiming` in virtual time. Nothing is fitted here: profiles are taken as they are, but for limits that a source
states (sequences at once, room for keys and values). Pure arithmetic, so it repeats to the last digit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, cycle, islice
from random import Random
from statistics import fmean, median
from typing import Any

from spillway_balancer.engine.profiles import Profile, profile
from spillway_balancer.engine.timing import EngineTiming, Kind
from spillway_balancer.engine.timing import Sequence as Request

Lengths = tuple[int, int]
"""Tokens of a prompt and of its answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who measured, where it can be read, and on what it ran."""

    name: str
    where: str
    engine: str


NVIDIA = Source(
    "NVIDIA",
    "github.com/NVIDIA/TensorRT-LLM, docs/source/performance/perf-overview.md of v0.14.0 "
    "(read in arthurrasmusson/TensorRT-LLM at e00d4e6)",
    "TensorRT-LLM 0.14.0, FP16 or BF16, one GPU",
)
ACCELMARK_OLD = Source(
    "AccelMark",
    "github.com/FreedomIntelligence/AccelMark at 5797fc4, results/verified/nvidia_{h100_80gb_hbm3x1,a100_sxm4_80gbx1}"
    "_suite_{A,D}_nvidia_vllm_47f5d58e_*/result.json",
    "vLLM 0.7.3, BF16, one GPU, called in process",
)
ACCELMARK_NEW = Source(
    "AccelMark'",
    "the same, nvidia_a100_sxm4_80gbx1_suite_{A,D}_nvidia_vllm020_0f6c56e4_*/result.json",
    "vLLM 0.20.1, BF16, one GPU, called in process",
)
LAMBDA = Source(
    "Lambda",
    "github.com/LambdaLabsML/vllm-benchmark, results/prompt_{10,320}/1x{H100,A100}-80GB-SXM/"
    "Meta-Llama-3-8B-Instruct_tp1_len*.json (211b2ae, f093afe, a4f9f43, a9b42a5)",
    "vLLM 0.6.0 with ten scheduler steps at once, BF16, one GPU, over HTTP",
)
KUBEAI = Source(
    "KubeAI",
    "github.com/kubeai-project/kubeai at f442a2c, benchmarks/multi-turn-chat-go/runs/llama-3.1-8x-l4/run.ipynb",
    "vLLM of February 2025, FP8 weights, BF16 keys and values, eight L4 behind a prefix hash",
)
SOURCES = NVIDIA, ACCELMARK_OLD, ACCELMARK_NEW, LAMBDA, KUBEAI


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a setting; times in seconds, rates in tokens a second."""

    ttft: float  # mean
    ttft_median: float
    tpot_median: float
    gap: float  # mean time between two tokens, each token counting the same
    output_rate: float
    duration: float


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure. `play` is given the profile with `limits` applied, `read` takes the figure from it."""

    source: Source
    profile: str
    setting: str
    figure: str
    unit: str
    published: float
    play: Callable[[Profile], Outcome]
    read: Callable[[Outcome], float]
    limits: tuple[tuple[str, float], ...] = ()

    def model(self) -> float:
        return self.read(_played(self.play, self.profile, self.limits))


@cache
def _played(play: Callable[[Profile], Outcome], name: str, limits: tuple[tuple[str, float], ...]) -> Outcome:
    """Several figures of one setting cost one run."""
    changes: dict[str, Any] = dict(limits)
    return play(replace(profile(name), **changes))


# ---- settings --------------------------------------------------------------------------------------------------------

Follow = Callable[[Request], Request | None]


def _run(given: Profile, arrivals: Iterable[tuple[float, Request]], follow: Follow | None = None) -> Outcome:
    """Play requests through one engine; `follow` may send another one when a request has ended."""
    engine, order, done = EngineTiming(given), count(), list[Request]()
    planned = [(at, next(order), request) for at, request in arrivals]
    heapq.heapify(planned)
    begun = planned[0][0]
    while True:
        change = engine.next_change()
        if planned and (change is None or planned[0][0] < change):
            at, _, request = heapq.heappop(planned)
            events = engine.submit(request, at)
        elif change is not None:
            events = engine.advance(change)
        else:
            break
        for event in events:
            if event.kind == Kind.FINISHED:
                done.append(event.sequence)
                if follow is not None and (another := follow(event.sequence)) is not None:
                    heapq.heappush(planned, (event.at, next(order), another))
    return _outcome(done, begun)


def _outcome(done: Sequence[Request], begun: float) -> Outcome:
    firsts, decodes, spent, gaps = list[float](), list[float](), 0.0, 0
    for request in done:
        first, end = request.first_token_at, request.finished_at
        if first is None or end is None:
            raise ValueError(f"request {request.id} made no token")
        firsts.append(first - request.submitted_at)
        if request.output_tokens > 1:
            decodes.append((end - first) / (request.output_tokens - 1))
            spent += end - first
            gaps += request.output_tokens - 1
    duration = max(request.finished_at or 0.0 for request in done) - begun
    produced = sum(request.output_tokens for request in done)
    return Outcome(fmean(firsts), median(firsts), median(decodes), spent / gaps, produced / duration, duration)


@dataclass(frozen=True, slots=True)
class Lone:
    """One request at a time."""

    lengths: Lengths

    def __call__(self, given: Profile) -> Outcome:
        return _run(given, [(0.0, Request(0, *self.lengths))])


@dataclass(frozen=True, slots=True)
class AtOnce:
    """All requests are there from the beginning."""

    lengths: tuple[Lengths, ...]
    requests: int

    def __call__(self, given: Profile) -> Outcome:
        return _run(given, [(0.0, Request(i, *each)) for i, each in enumerate(_some(self.lengths, self.requests))])


@dataclass(frozen=True, slots=True)
class Held:
    """So many requests in flight all the time."""

    lengths: tuple[Lengths, ...]
    together: int
    requests: int

    def __call__(self, given: Profile) -> Outcome:
        waiting = [Request(i, *each) for i, each in enumerate(_some(self.lengths, self.requests))][::-1]
        first = [(0.0, waiting.pop()) for _ in range(self.together)]
        return _run(given, first, lambda _: waiting.pop() if waiting else None)


@dataclass(frozen=True, slots=True)
class Rate:
    """Poisson arrivals at a rate a second."""

    lengths: tuple[Lengths, ...]
    rate: float
    requests: int

    def __call__(self, given: Profile) -> Outcome:
        dice, at, arrivals = Random(1), 0.0, list[tuple[float, Request]]()
        lengths = list(_some(self.lengths, self.requests))
        dice.shuffle(lengths)
        for i, each in enumerate(lengths):
            at += dice.expovariate(self.rate)
            arrivals.append((at, Request(i, *each)))
        return _run(given, arrivals)


@dataclass(frozen=True, slots=True)
class Chats:
    """So many conversations at once, each turn sent when the last answer is there; all earlier turns may be cached."""

    together: int
    chats: int
    questions: tuple[int, ...]
    answer: int
    turns: tuple[int, ...]
    spread: float
    """Seconds in which the first ones come: together they would stay in step for good."""

    def __call__(self, given: Profile) -> Outcome:
        of: dict[int, tuple[int, int]] = {}  # request -> (chat, turn)
        ids, turns, block = count(), list(islice(cycle(self.turns), self.chats)), given.block_tokens
        chats = iter(range(self.chats))

        def send(chat: int, turn: int) -> Request:
            asked = sum(self.questions[(chat + each) % len(self.questions)] for each in range(turn))
            prompt = asked + (turn - 1) * self.answer
            blocks = range(chat << 20, (chat << 20) + (prompt + self.answer) // block)
            request = Request(next(ids), prompt, self.answer, blocks)
            of[request.id] = chat, turn
            return request

        def follow(request: Request) -> Request | None:
            chat, turn = of.pop(request.id)
            if turn < turns[chat]:
                return send(chat, turn + 1)
            another = next(chats, None)
            return None if another is None else send(another, 1)

        first = [(chat * self.spread / self.together, send(chat, 1)) for chat in islice(chats, self.together)]
        return _run(given, first, follow)


def _some(lengths: tuple[Lengths, ...], requests: int) -> Iterable[Lengths]:
    return islice(cycle(lengths), requests)


# ---- figures ---------------------------------------------------------------------------------------------------------

H100, A100, L4 = "h100-llama3-8b", "a100-llama3-8b", "l4-llama3-8b"

_MS = 1000.0


def _ttft(outcome: Outcome) -> float:
    return outcome.ttft * _MS


def _ttft_median(outcome: Outcome) -> float:
    return outcome.ttft_median * _MS


def _tpot_median(outcome: Outcome) -> float:
    return outcome.tpot_median * _MS


def _gap(outcome: Outcome) -> float:
    return outcome.gap * _MS


def _output_rate(outcome: Outcome) -> float:
    return outcome.output_rate


def _duration(outcome: Outcome) -> float:
    return outcome.duration


TTFT, TTFT_P50 = ("time to first token", "ms", _ttft), ("first token, median", "ms", _ttft_median)
TPOT_P50, GAP = ("time per token, median", "ms", _tpot_median), ("time per token", "ms", _gap)
OUTPUT, DURATION = ("output", "tokens/s", _output_rate), ("to the last token", "s", _duration)

Figure = tuple[str, str, Callable[[Outcome], float]]


def _row(
    source: Source,
    part: str,
    setting: str,
    figure: Figure,
    published: float,
    play: Callable[[Profile], Outcome],
    **limits: float,
) -> Row:
    name, unit, read = figure
    return Row(source, part, setting, name, unit, published, play, read, tuple(sorted(limits.items())))


def _offline() -> Iterable[Row]:
    """`trtllm-bench throughput`: all queued at once, batch up to 4096, no eviction. Requests as many as there, but
    for 128/128, which has 30,000: the rate is the same after a few batches."""
    table = {
        (128, 128): (6000, 15571.65, 6701.80),
        (1000, 1000): (3000, 7054.52, 3634.39),
        (2048, 128): (3000, 1904.33, 795.39),
        (500, 2000): (3000, 7498.33, 3945.19),
        (20000, 2000): (1000, 562.87, 316.53),
    }
    for lengths, (requests, *figures) in table.items():
        for part, published in zip((H100, A100), figures, strict=True):
            setting = f"all at once, {lengths[0]} in, {lengths[1]} out"
            play = AtOnce((lengths,), requests)
            yield _row(NVIDIA, part, setting, OUTPUT, published, play, max_sequences=4096, max_batched_tokens=8192)


def _online() -> Iterable[Row]:
    """The same document's online measurements: 500 requests at a rate, BF16, over HTTP."""
    for rate, first, gap in ((2, 23, 8), (8, 26, 9), (16, 30, 11), (32, 50, 19)):
        play, setting = Rate(((467, 256),), rate, 500), f"{rate} requests/s, 467 in, 256 out"
        yield _row(NVIDIA, H100, setting, TTFT, first, play)
        yield _row(NVIDIA, H100, setting, GAP, gap, play)
    yield _row(NVIDIA, H100, "500 at once, 467 in, 256 out", OUTPUT, 9420, AtOnce(((467, 256),), 500))


# Suite A by tenths: its prompts, with the ten tokens of the chat template, and answers, which are cut at 512, as an
# earlier run in the same repository lists them (7ab048c, a100x1_llama3-8b_suite-A_2026-03-22/offline/samples.jsonl).
SUITE_A = (
    (79, 306), (95, 27), (112, 512), (146, 201), (198, 512),
    (244, 124), (299, 491), (370, 263), (415, 512), (533, 397),
)  # fmt: skip
SUITE_D: Lengths = (28650, 256)  # median


def _accelmark() -> Iterable[Row]:
    typical = (213, 346)
    yield _row(ACCELMARK_OLD, H100, "25 requests/s, suite A", TPOT_P50, 24.47, Rate(SUITE_A, 25, 300))
    for part, first, decode, long_first, held, slow, crowd in (
        (H100, 20.08, 7.74, 1076.72, 907.1, 9.52, 5113.45),
        (A100, 46.45, 13.19, 2838.69, 551.9, 21.70, 2696.82),
    ):
        yield _row(ACCELMARK_OLD, part, "lone, 213 in", TTFT_P50, first, Lone(typical))
        yield _row(ACCELMARK_OLD, part, "lone, 213 in", TPOT_P50, decode, Lone(typical))
        yield _row(ACCELMARK_OLD, part, "lone, 28650 in", TTFT_P50, long_first, Lone(SUITE_D))
        yield _row(ACCELMARK_OLD, part, "8 in flight, suite A", OUTPUT, held, Held(SUITE_A, 8, 2000))
        yield _row(ACCELMARK_OLD, part, "5 requests/s, suite A", TPOT_P50, slow, Rate(SUITE_A, 5, 300))
        yield _row(ACCELMARK_OLD, part, "100 at once, suite A", OUTPUT, crowd, AtOnce(SUITE_A, 100))
    # That version caches prefixes and the runs repeat their prompts, so of suite A only what hardly depends on prompts.
    yield _row(ACCELMARK_NEW, A100, "lone, 213 in", TPOT_P50, 10.77, Lone(typical))
    yield _row(ACCELMARK_NEW, A100, "lone, 28650 in", TTFT_P50, 3178.55, Lone(SUITE_D))
    yield _row(ACCELMARK_NEW, A100, "lone, 28650 in", TPOT_P50, 13.10, Lone(SUITE_D))
    yield _row(ACCELMARK_NEW, A100, "8 in flight, suite A", OUTPUT, 712.3, Held(SUITE_A, 8, 2000))
    yield _row(ACCELMARK_NEW, A100, "5 requests/s, suite A", TPOT_P50, 13.21, Rate(SUITE_A, 5, 300))


# The ten prompts' own lengths; of the 320, means of sixteen groups of equal size by length of the answer.
TEN = ((13, 120), (25, 414), (27, 233), (10, 194), (329, 101), (29, 741), (399, 9), (328, 3), (4, 6), (205, 31))
TEN_A100 = ((13, 120), (25, 506), *TEN[2:])
SHAREGPT = (
    (361, 1), (403, 7), (404, 14), (288, 20), (252, 27), (205, 44), (244, 79), (122, 137),
    (122, 187), (50, 231), (98, 278), (142, 322), (65, 366), (205, 414), (188, 492), (128, 649),
)  # fmt: skip


def _lambda() -> Iterable[Row]:
    yield _row(LAMBDA, H100, "10 ShareGPT prompts at once", DURATION, 5.46, AtOnce(TEN, 10))
    yield _row(LAMBDA, A100, "10 ShareGPT prompts at once", DURATION, 8.67, AtOnce(TEN_A100, 10))
    yield _row(LAMBDA, H100, "320 ShareGPT prompts at once", OUTPUT, 6026.6, AtOnce(SHAREGPT, 320))
    yield _row(LAMBDA, A100, "320 ShareGPT prompts at once", OUTPUT, 3107.5, AtOnce(SHAREGPT, 320))


QUESTIONS = 8, 14, 23, 40, 75, 212


def _kubeai() -> Iterable[Row]:
    """An eighth of 8,000 conversations with 7.38 turns on one of eight endpoints. Prompts have 386 tokens on average
    and answers 39, which leaves 62 for a question. Keys and values in BF16 take twice the profile's time to read; the
    room for them is 90 % of the memory less 9 GB of weights and 2 GB for steps of 16,384 tokens."""
    for threads, rate, gap, first in (
        (300, 3797.8, 72.25, 128.5),
        (600, 5205.1, 100.68, 205.6),
        (1200, 6568.4, 151.42, 386.0),
    ):
        setting = f"{threads} chats on 8 endpoints, cached"
        play = Chats(threads // 8, 1000, QUESTIONS, 39, (7, 8, 7), 3.0)
        for figure, published in ((OUTPUT, rate / 8), (GAP, gap), (TTFT, first)):
            yield _row(KUBEAI, L4, setting, figure, published, play, kv_tokens=80_000, kv_read_s=5.4e-7)


ROWS = (*_offline(), *_online(), *_accelmark(), *_lambda(), *_kubeai())

Table = tuple[str, list[str], list[list[str]]]


def off(row: Row) -> float:
    """By what share the model is above the published figure; negative where it is below."""
    return row.model() / row.published - 1.0


def validation() -> Table:
    """Published figures beside the model's."""
    rows = [
        [
            row.source.name,
            row.profile.removesuffix("-llama3-8b"),
            row.setting,
            f"{row.figure}, {row.unit}",
            _short(row.published),
            _short(row.model()),
            f"{off(row):+.0%}",
        ]
        for row in ROWS
    ]
    for part in (H100, A100, L4, None):
        errors = [abs(off(row)) for row in ROWS if part in (None, row.profile)]
        named = part.removesuffix("-llama3-8b") if part else "all"
        rows.append(["", named, f"mean absolute error of {len(errors)}", "", "", "", f"{fmean(errors):.0%}"])
    sources = "\n".join(f"{source.name}: {source.engine}; {source.where}" for source in SOURCES)
    title = f"The engine timing model against published figures\n{sources}"
    return title, ["source", "part", "setting", "figure", "published", "model", "off"], rows


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
