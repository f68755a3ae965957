"""The demo behind `make run`: a small city of engines, a provider, a balancer and people who chat, on loopback.

Stands beside the balancer's layers and imports none of them: everything here is a child process that is spoken to
over HTTP, as a user would.
"""
