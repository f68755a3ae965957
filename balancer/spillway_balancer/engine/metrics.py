"""The engine's /metrics page, under vLLM's names and labels, as Prometheus text.

Names, help texts and buckets follow vLLM's V1 engine (`vllm/v1/metrics/loggers.py`, since 0.9): counters end in
`_total`, prefix cache counters count tokens. Only those that a load balancer or a person at a dashboard reads are here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from .timing import EngineTiming

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
_QUERIES = "Prefix cache queries, in terms of number of queried tokens."
_HITS = "Prefix cache hits, in terms of number of cached tokens."
_GENERATED = "Number of generation tokens processed."
REASONS = ("stop", "length", "abort")


class Histogram:
    """Counts of observations, in seconds, by upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """What Prometheus stores of it: name suffix, labels, value."""
        seen = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            seen += count
            yield "_bucket", {"le": str(bound)}, seen
        yield "_count", {}, seen
        yield "_sum", {}, self.total


class Observed:
    """What the timing class does not count itself, because it is about requests or about real time."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.first_token = Histogram(_TTFT)
        self.latency = Histogram(_LATENCY)
        self.finished = dict.fromkeys(REASONS, 0)


def page(engine: EngineTiming, observed: Observed, model: str, absurd: str | None = None) -> str:
    """The page; with `absurd` every gauge and counter has that text for its value."""
    lines: list[str] = []

    def family(name: str, kind: str, help: str, samples: Iterable[tuple[str, dict[str, str], float]]) -> None:
        lines.append(f"# HELP {name} {help}")
        lines.append(f"# TYPE {name} {kind}")
        for suffix, more, value in samples:
            labels = {"engine": "0", "model_name": _escaped(model)} | more
            inside = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
            shown = absurd if absurd is not None and kind != "histogram" else float(value)
            lines.append(f"{name}{suffix}{{{inside}}} {shown}")

    for name, kind, help, value in (
        ("num_requests_running", "gauge", "Number of requests in model execution batches.", engine.running),
        ("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", engine.waiting),
        ("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", engine.kv_usage),
        ("prefix_cache_queries_total", "counter", _QUERIES, engine.queried_tokens),
        ("prefix_cache_hits_total", "counter", _HITS, engine.cached_tokens),
        ("num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", 0),
        ("prompt_tokens_total", "counter", "Number of prefill tokens processed.", observed.prompt_tokens),
        ("generation_tokens_total", "counter", _GENERATED, engine.generated_tokens),
    ):
        family(f"vllm:{name}", kind, help, [("", {}, value)])
    profile = engine.profile
    room = {"block_size": str(profile.block_tokens), "num_gpu_blocks": str(profile.kv_blocks)}
    family("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", [("", room, 1)])
    finished = [("", {"finished_reason": reason}, float(observed.finished[reason])) for reason in REASONS]
    family("vllm:request_success_total", "counter", "Count of successfully processed requests.", finished)
    ttft, latency = observed.first_token.samples(), observed.latency.samples()
    family("vllm:time_to_first_token_seconds", "histogram", "Histogram of time to first token in seconds.", ttft)
    family("vllm:e2e_request_latency_seconds", "histogram", "Histogram of e2e request latency in seconds.", latency)
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
