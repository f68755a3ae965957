"""A simulated inference engine that speaks vLLM's API, for demos, tests and the simulator.

Stands beside the balancer's layers and imports none of them: what is to be judged must not share code with
the judge. `timing` is pure and drives both `server` (real time) and the simulator (virtual time).
"""
