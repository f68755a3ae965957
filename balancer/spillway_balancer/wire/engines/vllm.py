"""vLLM. Names as in its vllm/v1/metrics/loggers.py and, for version 0, vllm/engine/metrics.py.

KV-cache usage and prefix-cache counters were renamed in 0.9; for a while both names were shown. Counters bear
`_total` on a page; Ray's exporter leaves it out. The prefix-cache counters count tokens (before 0.9: blocks), so only
their quotient compares. The label `engine` numbers data-parallel ranks. The room for keys and values stands in the
labels of an information metric: in newer versions in tokens, which is right for hybrid models too, else in blocks.
"""

from .dialect import Dialect, Product

VLLM = Dialect(
    engine="vLLM",
    prefix="vllm:",
    health_path="/health",
    waiting=("vllm:num_requests_waiting",),
    running=("vllm:num_requests_running",),
    kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    prefix_queries=(
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_queries",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries",
    ),
    prefix_hits=(
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_hits",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits",
    ),
    prefix_hit_rate=("vllm:gpu_prefix_cache_hit_rate",),
    cache_tokens=(
        Product("vllm:cache_config_info", ("kv_cache_size_tokens",)),
        Product("vllm:cache_config_info", ("num_gpu_blocks", "block_size")),
    ),
    rank="engine",
)
