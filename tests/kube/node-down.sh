#!/usr/bin/env bash
# Ends the cluster that node-up.sh started in $STATE and removes what it left. KEEP=1
# leaves the folder.
source "$(dirname "$0")/lib.sh"
STATE="${STATE:-/tmp/kube-node}"
[[ -f "$STATE/cgroups" ]] || exit 0
stop leash
stop forward
# unshare --kill-child: the end of the sandbox's parent ends its first process, and
# with that the kernel ends every process inside and drops mounts and network.
stop sandbox
remove_cgroup() {
    # Deepest first: a cgroup with children can't be removed.
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
    [[ ! -d "$1" ]]
}
while read -r dir; do
    [[ "$dir" == */spillway-node-* ]] || continue
    wait_for 20 "the end of processes in $dir" remove_cgroup "$dir" || true
done <"$STATE/cgroups"
if [[ "${KEEP:-0}" != 1 ]]; then rm -rf "$STATE"; fi
