"""Fake providers: small real servers, one for each family, for trying policies without spending money and for tests.

They stand beside the layers, as the simulated engine does, and use nothing of them: what they speak is written a second
time, after the providers' public documentation, so that a mistake on one side is not repeated on the other.
"""
