"""What a set of policies would do with a request, offline: `spillway explain` and `spillway test`."""
