"""Decisions: pure functions and values that are handed the time and the dice. No I/O."""
