#!/usr/bin/env bash
# Prints the folder that holds helm, kubeconform, kube-score and Kubernetes' own swagger.json; makes it the first time.
#
# The versions below are the truth; the folder's name is a hash of them, so another version is another folder. The
# cache stands outside the checkout ($SPILLWAY_KUBE_CACHE, else ~/.cache/spillway-kube), because CI clones afresh: a
# cold build costs about two minutes of CPU for helm and seconds for the others, and afterwards nothing.
# Everything is checked by Go's checksum database. A second caller waits for the first (flock).
set -euo pipefail

tools=(
  helm.sh/helm/v3/cmd/helm@v3.19.0
  github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
  github.com/zegl/kube-score/cmd/kube-score@v1.20.0
)
# Helm's own build writes these in; without them it takes itself for a Helm of Kubernetes 1.20 and refuses charts.
helm=helm.sh/helm/v3
flags="-s -w -X $helm/internal/version.version=v3.19.0"
for part in pkg/lint/rules pkg/chartutil; do
  flags+=" -X $helm/$part.k8sVersionMajor=1 -X $helm/$part.k8sVersionMinor=34"
done
kubernetes=k8s.io/kubernetes@v1.34.4 # kubeconform's schemas are made of the API description in this module

cache=${SPILLWAY_KUBE_CACHE:-${HOME:?}/.cache/spillway-kube}
key=$(printf '%s\n' "${tools[@]}" "$kubernetes" "$flags" | sha256sum | cut -c1-16)
folder=$cache/tools-$key

if [ ! -e "$folder/.complete" ]; then
  command -v go > /dev/null || { echo "no Go: helm, kubeconform and kube-score are built from Go modules" >&2; exit 3; }
  mkdir -p "$folder"
  exec 9> "$folder.lock"
  flock 9
  for tool in "${tools[@]}"; do
    program=$folder/$(basename "${tool%@*}")
    [ ! -e "$program" ] || continue
    echo "building $tool (once; kept in $folder)" >&2
    # nice: whoever waits for this usually runs tests beside it. CGO off: no C compiler and no libraries needed.
    GOBIN=$folder CGO_ENABLED=0 nice go install -trimpath -ldflags "$flags" "$tool" >&2
  done
  # Outside any module, so that no go.mod of the caller's folder has a say.
  module=$(cd "$folder" && GO111MODULE=on GOFLAGS=-mod=mod go mod download -json "$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  install -m 644 "$module/api/openapi-spec/swagger.json" "$folder/swagger.json"
  touch "$folder/.complete"
fi
echo "$folder"
