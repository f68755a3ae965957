"""The operator: turns custom resources into one Snapshot per gateway, and tells it to balancers."""
