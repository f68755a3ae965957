"""Bytes and values, without I/O: OpenAI bodies, event streams, forms, headers, engines' metrics, providers."""
