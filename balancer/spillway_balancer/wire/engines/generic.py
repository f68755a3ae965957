"""Any other server that speaks OpenAI's API: nothing is known of its metrics unless the pool names them."""

from .dialect import Dialect

GENERIC = Dialect(engine="Generic", prefix="", health_path="/health")
