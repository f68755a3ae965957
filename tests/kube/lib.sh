# shellcheck shell=bash
# Shared by build.sh and the node scripts. Source it, do not run it.
set -euo pipefail

KUBE_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# version_of MODULE PROGRAM: the version that programs/PROGRAM/go.mod pins.
version_of() {
    awk -v module="$1" '$1 == module && $2 ~ /^v/ { print $2; exit }' "$KUBE_HERE/programs/$2/go.mod"
}

# cache_dir PROGRAM: where a built program is kept: one folder for each set of
# inputs, so that a changed pin builds anew and an old build is never served.
cache_dir() {
    local root key
    root="${SPILLWAY_KUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spillway-kube}"
    key="$(cat "$KUBE_HERE/programs/$1"/{go.mod,*.go} "$KUBE_HERE/build.sh" | sha256sum | cut -c1-16)"
    echo "$root/$1-$key"
}

# A free TCP port on loopback. Another process could take it before we do: the
# caller finds out because its server then does not start.
free_port() {
    "${PYTHON:-python3}" - <<'PY'
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])
PY
}

# wait_for SECONDS WHAT COMMAND...: run COMMAND until it succeeds. Where WHAT is the
# name of something that start() started, its early end ends the wait at once.
wait_for() {
    local limit="$1" what="$2" end pidfile
    shift 2
    end=$((SECONDS + limit))
    pidfile="$STATE/$what.pid"
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "gave up after ${limit}s waiting for $what" >&2
        elif [[ -f "$pidfile" ]] && ! running "$what"; then
            echo "$what ended; its last lines:" >&2
        else
            sleep 0.1
            continue
        fi
        if [[ -f "${pidfile%.pid}.log" ]]; then tail -5 "${pidfile%.pid}.log" >&2; fi
        return 1
    done
}

# started PID: when that process started, in the kernel's ticks: with the id it names
# one process for good, where an id alone may be used again. Nothing for a process that
# has ended and only waits to be collected (Z).
started() { sed -n 's/.*) \([^Z].*\)/\1/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# start NAME COMMAND...: run COMMAND in the background in a session of its own;
# its process id and start go to $STATE/NAME.pid and its output to $STATE/NAME.log.
start() {
    local name="$1"
    shift
    setsid "$@" >"$STATE/$name.log" 2>&1 </dev/null &
    echo "$! $(started $!)" >"$STATE/$name.pid"
}

# running NAME: whether what start() recorded still runs.
running() {
    local pid ticks
    [[ -f "$STATE/$1.pid" ]] && read -r pid ticks <"$STATE/$1.pid" && [[ -n "$ticks" && "$(started "$pid")" == "$ticks" ]]
}

# stop NAME: end what start() recorded. At once: everything here is thrown away with
# its data, and a clean shutdown of an API server takes five seconds.
stop() {
    if running "$1"; then
        kill -9 "$(cut -d' ' -f1 "$STATE/$1.pid")"
        while running "$1"; do sleep 0.02; done
    fi
    rm -f "$STATE/$1.pid"
}
