#!/usr/bin/env bash
# Makes ready, in the open, what the tests with a real Kubernetes need: `make kube-assets`.
# The programs are built once on a machine (about 10 minutes of processor time) and kept
# outside the checkout; Debian's packages are installed where that is possible. What can't
# be had is said, and the tests that need it are skipped (on CI they fail).
set -euo pipefail
cd "$(dirname "$0")"

have() { command -v "$1" >/dev/null; }
# Built before or to be built: prints its folder, or says why not.
program() { echo "$1: $(./build.sh "$1")"; }

if [[ "$(uname)" != Linux && -z "${KUBEBUILDER_ASSETS:-}" ]]; then
    echo "no Kubernetes for the tests: outside Linux set KUBEBUILDER_ASSETS (kubebuilder's envtest brings them)"
    exit 0
fi
if ! have go; then
    echo "no Go here: only what was built before is used (KUBEBUILDER_ASSETS, or ~/.cache/spillway-kube)"
    program kubebin || true
    exit 0
fi
program kubebin
if [[ "$(uname)" == Linux && "$(id -u)" == 0 ]]; then
    ./packages.sh
    # Assets of envtest have no kubelet: the cluster in which Pods run takes programs of our own.
    if [[ -n "${KUBEBUILDER_ASSETS:-}" && ! -x "$KUBEBUILDER_ASSETS/kubelet" ]]; then
        (unset KUBEBUILDER_ASSETS && program kubebin)
    fi
    program coredns
    program pause
fi
