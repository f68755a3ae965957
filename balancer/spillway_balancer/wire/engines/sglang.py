"""SGLang, started with --enable-metrics. Names as in its python/sglang/srt/metrics/collector.py.

`cache_hit_rate` is of the last batch alone and 0 after every decode step; what was cached of all prompts is told by
the counters. A gauge appears with the first batch only: until then load is unknown. `dp_rank` numbers data-parallel
ranks; with --enable-metrics-for-all-schedulers every tensor-parallel rank repeats its numbers, and with priority
scheduling each priority has a series of its own beside the whole. The room for keys and values is a gauge since
0.5.11; before that it stood in labels.
"""

from .dialect import Dialect, Product

SGLANG = Dialect(
    engine="SGLang",
    prefix="sglang:",
    health_path="/health",
    waiting=("sglang:num_queue_reqs",),
    running=("sglang:num_running_reqs",),
    kv_usage=("sglang:token_usage",),
    prefix_queries=("sglang:prompt_tokens_total",),
    prefix_hits=("sglang:cached_tokens_total",),
    prefix_hit_rate=("sglang:cache_hit_rate",),
    cache_tokens=(
        Product("sglang:max_total_num_tokens"),
        Product("sglang:cache_config_info", ("page_size", "num_pages")),
    ),
    rank="dp_rank",
)
