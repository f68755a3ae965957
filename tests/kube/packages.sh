#!/usr/bin/env bash
# Installs what the tier "cluster" needs of Debian or Ubuntu and this machine lacks. Says so and
# does nothing where that is not its business: not root, not Linux, another distribution.
set -euo pipefail

say() { echo "packages.sh: $*" >&2; }
# What is looked for, and the package that brings it.
wanted=(
    containerd:containerd
    runc:runc
    /usr/lib/cni/bridge:containernetworking-plugins
    iptables:iptables
    conntrack:conntrack
    openssl:openssl
    curl:curl
    ip:iproute2
    pgrep:procps
    nsenter:util-linux
)
export PATH="$PATH:/usr/sbin:/sbin"
missing=()
for entry in "${wanted[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
((${#missing[@]})) || exit 0

if [[ "$(uname)" != Linux || "$(id -u)" != 0 ]] || ! command -v apt-get >/dev/null; then
    say "missing for the tests of the tier cluster: ${missing[*]} (installed only by root on Debian or Ubuntu)"
    exit 0
fi
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2; }
# A machine whose lists of packages are old, or not there, needs new ones first.
install || { apt-get update -qq >&2 && install; }
