#!/usr/bin/env bash
# `make images`, `make kind-up`, `make kind-demo` and `make kind-down`: Spillway on a cluster in Docker.
#
# The cluster is called spillway, and only the context kind-spillway is ever used, so that no other cluster of yours is
# touched. BASE is what the images are made on, python@sha256:... to pin it. `images` alone also works with ENGINE=podman.
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=${ENGINE:-docker}
base=${BASE:-python:3.14-slim}
cluster=spillway
namespace=spillway-system
version=$(sed -n 's/^appVersion: //p' charts/spillway/Chart.yaml)
k=(kubectl --context "kind-$cluster")

need() { # need PROGRAM WHAT-FOR
  command -v "$1" > /dev/null || { echo "$1 is missing: it $2" >&2; exit 1; }
}

need_engine() {
  need "$engine" "builds the images"
  "$engine" info > /dev/null 2>&1 || { echo "$engine is there, but \`$engine info\` fails: is it running, and may you use it?" >&2; exit 1; }
}

need_cluster() {
  need kind "makes the cluster: https://kind.sigs.k8s.io"
  need kubectl "talks to the cluster"
}

there() { kind get clusters 2> /dev/null | grep -qx "$cluster"; }

images() {
  need_engine
  for part in balancer operator; do
    "$engine" build --build-arg "PYTHON=$base" -f "$part/Containerfile" -t "spillway-$part:$version" .
  done
}

up() {
  engine=docker # kind loads images from Docker's store
  need_engine
  need_cluster
  need helm "installs the chart; version 3.17 or newer"
  there || kind create cluster --name "$cluster" --config kind-config.yaml
  images
  for part in balancer operator; do
    kind load docker-image "spillway-$part:$version" --name "$cluster"
  done
  helm upgrade --install spillway charts/spillway --kube-context "kind-$cluster" \
    --namespace "$namespace" --create-namespace --set gateway.drainSeconds=60 --wait --timeout 5m
  # Images of the same version built again have the same name; only new pods take them.
  "${k[@]}" -n "$namespace" rollout restart deployment -l app.kubernetes.io/instance=spillway
  "${k[@]}" -n "$namespace" rollout status deployment/spillway-operator --timeout 3m
  "${k[@]}" -n "$namespace" rollout status deployment/spillway-gateway --timeout 3m
  echo "Spillway runs. Next: make kind-demo"
}

demo() {
  need_cluster
  there || { echo "there is no cluster called $cluster: make kind-up" >&2; exit 1; }
  "${k[@]}" -n demo delete job client --ignore-not-found
  "${k[@]}" apply --server-side -k examples/kind
  "${k[@]}" -n demo rollout status deployment/engines --timeout 3m
  "${k[@]}" -n demo wait --for=condition=Ready modelpool/engines routepolicy/chat --timeout 1m
  "${k[@]}" -n demo get modelpools,routepolicies
  "${k[@]}" -n demo wait --for=condition=Complete job/client --timeout 3m || true
  "${k[@]}" -n demo logs job/client
  echo
  echo "Ask it yourself:"
  echo "  kubectl --context kind-$cluster -n $namespace port-forward svc/spillway 8080:80 &"
  echo "  curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \\"
  echo "    -d '{\"model\": \"chat\", \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}'"
}

down() {
  need kind "made the cluster: https://kind.sigs.k8s.io"
  kind delete cluster --name "$cluster"
}

case ${1:-} in
  images | up | demo | down) "$1" ;;
  *) echo "usage: $0 images|up|demo|down" >&2; exit 2 ;;
esac
