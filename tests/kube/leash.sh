#!/usr/bin/env bash
# Takes the cluster in $STATE down when its owner has ended without doing so:
# leash.sh PID STARTED. A test run that is killed leaves nothing behind.
source "$(dirname "$0")/lib.sh"
while [[ "$(started "$1")" == "$2" ]]; do sleep 1; done
# What node-down.sh would stop is this very process.
rm -f "$STATE/leash.pid"
exec "$KUBE_HERE/node-down.sh"
