#!/usr/bin/env bash
# Runs a command inside the cluster that node-up.sh started: its network (Pods and
# Services are reached by address), its mounts and its processes.
source "$(dirname "$0")/lib.sh"
STATE="${STATE:-/tmp/kube-node}"
inside="$(cat "$STATE/inside.pid")"
exec nsenter --target "$inside" --mount --net --pid --uts --ipc --wd="$PWD" \
    env KUBECONFIG="$STATE/kubeconfig-inside" PATH="$(cat "$STATE/programs"):$PATH" CONTAINERD_NAMESPACE=k8s.io "$@"
