"""The simulator: traces against the product's own dispatch, and that of its peers, in virtual time.

It stands beside the layers as the engine does: it drives core/ and engine/timing.py, and nothing of the balancer
imports it but the command line.
"""
