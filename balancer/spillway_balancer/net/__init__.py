"""Sockets: the server, the endpoints' side, sources, polling, metrics. It carries out what the core decides."""
