"""What one step of an inference engine costs, as data: a profile is a piece of hardware running one model.

The cost of a step is linear in what the step does, which is how the public simulators of LLM inference model
it:

    step = step_s + sequence_s * sequences + linear + attention_s * pairs + kv_read_s * kv
    linear = max(weights_s + 0.15 * token_s * tokens, token_s * tokens)

`tokens` are the query tokens of the step (prefill chunks plus one for each decoding sequence), `pairs` the
products of query tokens and the context tokens they attend to in prefill, `kv` the context tokens read by
decoding. The two arms of `linear` are the memory-bound regime, where a step lasts as long as reading the
weights, and the compute-bound one.

Where the numbers come from:

- `token_s` and `weights_s` of the A100 and the H100 are fitted to the profiling tables that the Vidur simulator
  publishes (github.com/microsoft/vidur, data/profiling) for models of the Llama 7B/8B class.
- `attention_s`, `kv_read_s`, `step_s` and `sequence_s` are estimates: arithmetic and memory bandwidth of the part
  for the first two, scheduler and sampler on one CPU core for the last two.
- The L4 profile is the A100's scaled by compute and bandwidth (fp8), not measured.
- `kv_tokens` is arithmetic: 90 % of the memory less the weights, at 128 KiB a token (64 KiB in fp8), rounded.

So absolute seconds are plausible and no more; the order in which dispatch strategies come out is what they
are for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# In the memory-bound regime part of the arithmetic is not hidden behind the read of the weights.
_UNHIDDEN = 0.15


@dataclass(frozen=True, slots=True)
class Profile:
    """One engine: step costs in seconds, sizes in tokens. ValueError for sizes that no engine could have."""

    name: str
    weights_s: float  # s a step: reading the weights, however few tokens the step has
    token_s: float  # s a query token: linear layers when compute-bound
    step_s: float  # s a step: scheduler, sampler, launches
    sequence_s: float  # s a sequence in the step
    attention_s: float  # s a (query token x context token) of prefill
    kv_read_s: float  # s a context token read by decoding
    kv_tokens: int  # room for keys and values
    max_batched_tokens: int  # query tokens a step may have (vLLM: --max-num-batched-tokens)
    max_sequences: int  # sequences running at once (vLLM: --max-num-seqs)
    max_model_len: int  # prompt and answer together (vLLM: --max-model-len)
    block_tokens: int = 16  # tokens a KV block (vLLM: --block-size)
    latency_s: float = 0.0  # s before a request reaches the queue: network and front end of a remote provider

    def __post_init__(self) -> None:
        if self.max_batched_tokens < 1 or self.max_sequences < 1 or self.block_tokens < 1:
            raise ValueError(f"profile {self.name}: token budget, sequences and block size must be at least 1")
        if self.kv_tokens < self.block_tokens:
            raise ValueError(f"profile {self.name}: no room for one KV block")
        if self.weights_s + self.step_s <= 0:
            raise ValueError(f"profile {self.name}: a step must take time")

    @property
    def kv_blocks(self) -> int:
        return self.kv_tokens // self.block_tokens

    @property
    def longest(self) -> int:
        """The most tokens, prompt and answer together, that one sequence may have."""
        return min(self.max_model_len, self.kv_blocks * self.block_tokens)

    def step_seconds(self, tokens: int, sequences: int, pairs: float, kv: int) -> float:
        """How long a step takes; see the head of the file."""
        compute = self.token_s * tokens
        linear = max(self.weights_s + _UNHIDDEN * compute, compute)
        return self.step_s + self.sequence_s * sequences + linear + self.attention_s * pairs + self.kv_read_s * kv

    def slower(self, factor: float) -> Profile:
        """The same engine with every duration multiplied: an older or a throttled sister in the same pool."""
        return replace(
            self,
            name=f"{self.name}/{factor:g}",
            weights_s=self.weights_s * factor,
            token_s=self.token_s * factor,
            step_s=self.step_s * factor,
            sequence_s=self.sequence_s * factor,
            attention_s=self.attention_s * factor,
            kv_read_s=self.kv_read_s * factor,
        )


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="h100-llama3-8b",  # bf16, H100 SXM 80 GB
            weights_s=6.0e-3,
            token_s=22.9e-6,
            step_s=2.6e-3,
            sequence_s=12e-6,
            attention_s=1.06e-9,
            kv_read_s=5.2e-8,
            kv_tokens=400_000,
            max_batched_tokens=8192,
            max_sequences=256,
            max_model_len=131_072,
        ),
        Profile(
            name="a100-llama3-8b",  # bf16, A100 SXM 80 GB
            weights_s=9.8e-3,
            token_s=68.8e-6,
            step_s=3.2e-3,
            sequence_s=15e-6,
            attention_s=2.8e-9,
            kv_read_s=8.6e-8,
            kv_tokens=400_000,
            max_batched_tokens=2048,
            max_sequences=256,
            max_model_len=131_072,
        ),
        Profile(
            name="l4-llama3-8b",  # fp8, L4 24 GB
            weights_s=31e-3,
            token_s=190e-6,
            step_s=3.0e-3,
            sequence_s=20e-6,
            attention_s=8.7e-9,
            kv_read_s=2.7e-7,
            kv_tokens=190_000,
            max_batched_tokens=2048,
            max_sequences=256,
            max_model_len=131_072,
        ),
        # Made up, to show queueing and cache effects within seconds: about 4,000 uncached prompt tokens a
        # second, a decode step of 25 ms alone and 41 ms with 32 chats of 1,000 tokens, and room for some
        # sixty such chats.
        Profile(
            name="laptop-demo",
            weights_s=20e-3,
            token_s=230e-6,
            step_s=4.0e-3,
            sequence_s=0.3e-3,
            attention_s=5e-9,
            kv_read_s=0.2e-6,
            kv_tokens=60_000,
            max_batched_tokens=512,
            max_sequences=32,
            max_model_len=16_384,
        ),
        # Made up: a remote provider. Never full, the same 15 ms a token whatever the load, a third of a
        # second away.
        Profile(
            name="provider",
            weights_s=15e-3,
            token_s=2e-6,
            step_s=0.0,
            sequence_s=0.0,
            attention_s=0.0,
            kv_read_s=0.0,
            kv_tokens=100_000_000,
            max_batched_tokens=65_536,
            max_sequences=4096,
            max_model_len=131_072,
            latency_s=0.35,
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; ValueError, naming those that exist, when there is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"no profile {name!r}; there are: {', '.join(PROFILES)}") from None
