#!/usr/bin/env bash
# Starts a whole one-node Kubernetes cluster, in which Pods really run, inside
# namespaces of its own: mounts, processes, network, hostname, IPC and cgroups.
#
#   STATE=/tmp/kube-node ./node-up.sh [IMAGE.tar ...]   imports the archives, starts the cluster
#   STATE=/tmp/kube-node ./node-exec.sh COMMAND...      runs COMMAND inside (KUBECONFIG is set)
#   STATE=/tmp/kube-node ./node-down.sh
#
# Needs root, Linux, and what packages.sh installs.
#
# The cluster's network has no way out: node, Pods and Services see each other and
# nothing else, and no packet of theirs appears in this machine's own network.
# Tests reach it through node-exec.sh, or through the API server's port that
# is carried to 127.0.0.1 over a Unix socket (KUBECONFIG=$STATE/kubeconfig).
# When the sandbox's first process ends, the kernel ends everything in it.
#
# With OWNER, a process id, the cluster is taken down when that process ends. With
# KEEP=1 what a failed start has written is left to be read.
#
# Unlike a cluster of several machines: one node, no LoadBalancer, no storage
# classes, no image pulls, no metrics server, NetworkPolicies without effect.
source "$(dirname "$0")/lib.sh"

STATE="${STATE:-/tmp/kube-node}"
PYTHON="${PYTHON:-python3}"
# Assets of envtest hold no kubelet.
[[ -x "${KUBEBUILDER_ASSETS:-}/kubelet" ]] || unset KUBEBUILDER_ASSETS
bin="$("$KUBE_HERE/build.sh")"
[[ "$(id -u)" == 0 ]] || { echo "node-up.sh needs root" >&2; exit 1; }
for program in "$bin/kubelet" containerd containerd-shim-runc-v2 runc ctr iptables conntrack nsenter unshare; do
    command -v "$program" >/dev/null || { echo "missing: $program" >&2; exit 1; }
done
[[ -x /usr/lib/cni/bridge ]] || { echo "missing: containernetworking-plugins" >&2; exit 1; }
[[ ! -e "$STATE/sandbox.pid" ]] || { echo "$STATE is in use: run node-down.sh first" >&2; exit 1; }

umask 077
mkdir -p "$STATE"/{pki,images,containerd,kubelet,cni,logs,etcd,run}
chmod 755 "$STATE"
echo "$bin" >"$STATE/programs"

undo() {
    trap - EXIT
    if [[ -f "$STATE/logs/inside.log" ]]; then tail -20 "$STATE/logs/inside.log" >&2; fi
    if [[ "${KEEP:-0}" == 1 ]]; then
        echo "node-up.sh: the cluster did not start; each part's log is in $STATE" >&2
    fi
    STATE="$STATE" "$KUBE_HERE/node-down.sh" || true
    exit 1
}
trap undo EXIT
trap 'exit 1' INT TERM

# The images of every Pod's first container and of the cluster's DNS, made here.
for program in pause coredns; do
    "$PYTHON" "$KUBE_HERE/image/mkimage.py" "$STATE/images/$program.tar" "localhost/$program:1" \
        --static "$("$KUBE_HERE/build.sh" "$program")/$program" >/dev/null
done
for archive in "$@"; do cp "$archive" "$STATE/images/"; done

# A cgroup of our own under the one we are in, in every hierarchy there is, so that
# nothing that the kubelet makes lies outside it. node-down.sh removes it.
cgroup="spillway-node-$$"
: >"$STATE/cgroups"
while IFS=: read -r _ controllers path; do
    case "$controllers" in
    "") mount="$(findmnt -rno TARGET -t cgroup2 | head -1)" ;;
    name=*) mount="/sys/fs/cgroup/${controllers#name=}" ;;
    *) mount="/sys/fs/cgroup/$controllers" ;;
    esac
    [[ -n "$mount" && -d "$mount$path" ]] || continue
    dir="$mount${path%/}/$cgroup"
    mkdir "$dir"
    echo "$dir" >>"$STATE/cgroups"
    # A new cpuset has no processor and no memory node, and takes no process.
    if [[ "$controllers" == *cpuset* ]]; then
        cat "$mount$path/cpuset.cpus" >"$dir/cpuset.cpus"
        cat "$mount$path/cpuset.mems" >"$dir/cpuset.mems"
    fi
done </proc/self/cgroup

export KUBE_HERE STATE PYTHON KUBE_BIN="$bin"
# The subshell enters the cgroups before unshare makes them the root of the new view.
(
    while read -r dir; do echo "$BASHPID" >"$dir/cgroup.procs"; done <"$STATE/cgroups"
    exec setsid unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc --net --uts --ipc --cgroup \
        bash "$KUBE_HERE/node-inside.sh" >"$STATE/logs/inside.log" 2>&1 </dev/null
) &
sandbox=$!
echo "$sandbox $(started "$sandbox")" >"$STATE/sandbox.pid"
if [[ -n "${OWNER:-}" ]]; then
    start leash bash "$KUBE_HERE/leash.sh" "$OWNER" "$(started "$OWNER")"
fi

# The first process inside, as seen from here: node-exec.sh enters its namespaces.
wait_for 10 sandbox pgrep -P "$sandbox"
pgrep -P "$sandbox" >"$STATE/inside.pid"

# Ready, or ended before it was: node-inside.sh stops at the first thing that fails.
settled() { [[ -e "$STATE/ready" ]] || ! running sandbox; }
wait_for "${NODE_TIMEOUT:-180}" "the cluster" settled
[[ -e "$STATE/ready" ]]

# The API server on this machine's loopback, over the Unix socket made inside.
api_port="${API_PORT:-$(free_port)}"
start forward "$PYTHON" "$KUBE_HERE/forward.py" "tcp:127.0.0.1:$api_port" "unix:$STATE/run/api.sock"
sed "s#https://[0-9.]*:6443#https://127.0.0.1:$api_port#" "$STATE/kubeconfig-inside" >"$STATE/kubeconfig"
wait_for 10 forward curl -sfk -m 2 "https://127.0.0.1:$api_port/version"
trap - EXIT
echo "KUBECONFIG=$STATE/kubeconfig"
