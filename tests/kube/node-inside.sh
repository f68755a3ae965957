#!/usr/bin/env bash
# The first process inside the namespaces that node-up.sh makes. It lays out mounts
# and network, then starts containerd, the control plane, kubelet and kube-proxy.
source "$KUBE_HERE/lib.sh"

node_ip=10.203.0.10
pod_cidr=10.204.0.0/24
service_cidr=10.96.0.0/16
api="https://$node_ip:6443"
export PATH="$KUBE_BIN:$PATH"
step() { printf '%s  %s\n' "$(date +%T.%3N)" "$*"; }

# containerd hands its umask on to the root folder of every image it unpacks: with
# 077 no container whose user is not root finds its program.
umask 022

# ---- mounts: what is written in well-known places goes to $STATE
mount --make-rshared /
mkdir -p /var/lib/containerd /var/lib/kubelet /etc/cni /var/log/pods /var/log/containers "$STATE"/logs/{pods,containers}
mount --bind "$STATE/containerd" /var/lib/containerd
mount --bind "$STATE/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$STATE/cni" /etc/cni
mount --bind "$STATE/logs/pods" /var/log/pods
mount --bind "$STATE/logs/containers" /var/log/containers
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni

# ---- cgroups: the same hierarchies, seen from our own cgroup as their root
hierarchies="$(findmnt -rno TARGET,FSTYPE,OPTIONS | awk '$2 == "cgroup" || $2 == "cgroup2"')"
umount -R /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while read -r target fstype options; do
    mkdir -p "$target"
    if [[ "$fstype" == cgroup2 ]]; then
        mount -t cgroup2 cgroup2 "$target"
    else
        # Only the options that name the hierarchy: its controllers, or name=...
        mount -t cgroup -o "$(tr , '\n' <<<"$options" | grep -vE '^(rw|ro|relatime|nosuid|nodev|noexec|xattr|release_agent=.*)$' | paste -sd,)" cgroup "$target"
    fi
done <<<"$hierarchies"

# ---- kernel settings that the kubelet insists on and that belong to the whole
# machine: it reads the values it wants from files of ours, and the machine keeps its own.
mkdir -p "$STATE/sysctl"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file="/proc/sys/${setting%=*}"
    [[ -e "$file" ]] || continue
    echo "${setting#*=}" >"$STATE/sysctl/$(basename "$file")"
    mount --bind "$STATE/sysctl/$(basename "$file")" "$file"
done

# ---- network: a node address on an interface that leads nowhere
hostname node
ip link set lo up
# A veth pair with both ends here: not every kernel has the dummy device.
ip link add eth0 type veth peer name nowhere
ip link set nowhere up
ip address add "$node_ip/24" dev eth0
ip link set eth0 up
# Service addresses are rewritten after the route is chosen, so there must be one.
ip route add default dev eth0
echo 1 >/proc/sys/net/ipv4/ip_forward
# Pods on one bridge reach each other through a Service only when the bridge hands
# its frames to iptables.
[[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-bridge.conflist <<CNI
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CNI

# ---- containerd
cat >"$STATE/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # A sandbox may lack CAP_SYS_RESOURCE: then no process may lower its own out-of-memory score.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
TOML
step "containerd"
start containerd containerd --config "$STATE/containerd.toml"
wait_for 30 containerd ctr version
for archive in "$STATE"/images/*.tar; do
    ctr -n k8s.io images import --no-unpack "$archive" >/dev/null
    step "imported $(basename "$archive")"
done

# ---- keys and log-ins: each part has the name that Kubernetes' own roles expect
pki="$STATE/pki"
if [[ ! -f "$pki/tokens.csv" ]]; then
    umask 077
    # Python from 3.13 on demands the two key identifiers.
    sign() { # sign NAME SUBJECT EXTENSIONS
        openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
        openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr"
        openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 3650 \
            -extfile <(printf '%b' "$3\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n") -out "$pki/$1.crt" 2>/dev/null
    }
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
    openssl req -x509 -new -key "$pki/ca.key" -subj /CN=spillway-test-ca -days 3650 \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature -out "$pki/ca.crt" 2>/dev/null
    sign apiserver /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$node_ip,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local\nextendedKeyUsage=serverAuth"
    sign kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client "extendedKeyUsage=clientAuth"
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/sa.key"
    for login in admin:system:masters system:node:node:system:nodes system:kube-controller-manager: system:kube-scheduler: system:kube-proxy:; do
        case "$login" in
        admin:*) user=admin group=system:masters ;;
        system:node:*) user=system:node:node group=system:nodes ;;
        *) user="${login%:}" group= ;;
        esac
        token="$(openssl rand -hex 16)"
        echo "$token,$user,$user${group:+,$group}" >>"$pki/tokens.csv"
        file="$STATE/kubeconfig-$(tr : - <<<"$user")"
        [[ "$user" == admin ]] && file="$STATE/kubeconfig-inside"
        cat >"$file" <<KUBECONFIG
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "$api", certificate-authority: $pki/ca.crt}}]
users: [{name: user, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: user, namespace: default}}]
KUBECONFIG
    done
    umask 022
fi
export KUBECONFIG="$STATE/kubeconfig-inside"

# ---- control plane
step "etcd and kube-apiserver"
start etcd etcd --name=node --data-dir="$STATE/etcd" --unsafe-no-fsync --logger=zap --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=node=http://127.0.0.1:2380
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$node_ip" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP \
    --token-auth-file="$pki/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/sa.key" --service-account-signing-key-file="$pki/sa.key" \
    --service-cluster-ip-range="$service_cidr" --allow-privileged=true --profiling=false \
    --audit-policy-file="$KUBE_HERE/audit.yaml" --audit-log-path="$STATE/audit.log"
start forward-inside "$PYTHON" "$KUBE_HERE/forward.py" "unix:$STATE/run/api.sock" tcp:127.0.0.1:6443
wait_for 90 "the API server" kubectl get --raw /readyz
step "controllers, scheduler, kube-proxy"
start kube-controller-manager kube-controller-manager --kubeconfig="$STATE/kubeconfig-system-kube-controller-manager" \
    --authentication-kubeconfig="$STATE/kubeconfig-system-kube-controller-manager" --authorization-kubeconfig="$STATE/kubeconfig-system-kube-controller-manager" \
    --leader-elect=false --use-service-account-credentials=true --bind-address=127.0.0.1 \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/sa.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" --cert-dir="$pki"
start kube-scheduler kube-scheduler --kubeconfig="$STATE/kubeconfig-system-kube-scheduler" \
    --authentication-kubeconfig="$STATE/kubeconfig-system-kube-scheduler" --authorization-kubeconfig="$STATE/kubeconfig-system-kube-scheduler" \
    --leader-elect=false --bind-address=127.0.0.1 --cert-dir="$pki"
# The connection-tracking limits belong to the whole machine: 0 leaves them alone.
cat >"$STATE/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ${KUBE_PROXY_MODE:-iptables}
clientConnection: {kubeconfig: $STATE/kubeconfig-system-kube-proxy}
clusterCIDR: $pod_cidr
hostnameOverride: node
# Rules follow their Service within a moment; the default gathers changes for a second.
iptables: {minSyncPeriod: 100ms}
nftables: {minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
start kube-proxy kube-proxy --config="$STATE/kube-proxy.yaml"

# ---- kubelet
cat >"$STATE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# This machine has cgroup v1 beside v2; Kubernetes 1.34 still runs on it.
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
oomScoreAdj: 0
# Tests run on shared machines with little disk left: no eviction for its sake.
evictionHard: {memory.available: 50Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
resolvConf: ""
maxPods: 60
registerNode: true
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
shutdownGracePeriod: 0s
YAML
step "kubelet"
start kubelet kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/kubeconfig-system-node-node" \
    --hostname-override=node --node-ip="$node_ip" --root-dir=/var/lib/kubelet --cert-dir="$STATE/pki/kubelet"
wait_for 90 "the node to be Ready" bash -c 'kubectl wait node/node --for=condition=Ready --timeout=5s'
step "node is Ready"

if [[ -f "$STATE/images/coredns.tar" ]]; then
    kubectl apply -f "$KUBE_HERE/coredns.yaml" >/dev/null
    kubectl -n kube-system rollout status deployment/coredns --timeout=60s
    step "CoreDNS is up"
fi
touch "$STATE/ready"
# As the first process here, wait for and collect whatever ends.
while :; do wait -n || true; sleep 1; done
