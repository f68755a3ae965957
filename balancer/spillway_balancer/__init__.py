"""The balancer: cli, app, net, wire and core, each using only those after it; beside them engine and city."""
