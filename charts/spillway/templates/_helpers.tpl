{{/* The release's name if it says spillway, else RELEASE-spillway. 40 characters leave room for what is put behind. */}}
{{- define "spillway.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-spillway" .Release.Name) (contains "spillway" .Release.Name) -}}
{{- if gt (len $name) 40 }}{{ fail (printf "the release's name makes %q, which is longer than 40 characters: names of gateways would not fit behind it" $name) }}{{ end -}}
{{- $name -}}
{{- end }}

{{/* Labels of everything. (dict "root" $ "component" "operator") */}}
{{- define "spillway.labels" -}}
{{ include "spillway.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: spillway
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the pods of a component, and of one gateway: (dict "root" $ "component" "gateway" "gateway" "default") */}}
{{- define "spillway.selector" -}}
app.kubernetes.io/name: spillway
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .gateway }}
spillway.dev/gateway: {{ . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "of" "balancer") */}}
{{- define "spillway.image" -}}
{{- $image := .root.Values.image -}}
{{- $own := index $image .of -}}
{{- $name := ternary $own.repository (printf "%s/%s" (trimSuffix "/" $image.registry) $own.repository) (empty $image.registry) -}}
{{- if $own.digest }}{{ $name }}@{{ $own.digest }}{{ else }}{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "spillway.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Pod Security "restricted", and more: no user that owns anything in the image, nothing writable. */}}
{{- define "spillway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "spillway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run: the settings that operator and gateways share by name. */}}
{{- define "spillway.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* Labels and annotations of people, which may not take the place of ours. (dict "own" .podLabels "where" "operator") */}}
{{- define "spillway.podLabels" -}}
{{- range $key, $value := .own }}
{{- if or (has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "spillway.dev/gateway")) }}
{{- fail (printf "%s.podLabels: %s is the chart's own, Services and budgets select by it" $.where $key) }}
{{- end }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* All gateways by name as JSON, each merged over the defaults, with the names of its objects; refuses contradictions. */}}
{{- define "spillway.gateways" -}}
{{- $fullname := include "spillway.fullname" . -}}
{{- $all := dict -}}
{{- range $name, $own := .Values.gateways -}}
{{- $one := mergeOverwrite (deepCopy $.Values.gateway) (deepCopy ($own | default dict)) -}}
{{- $where := printf "gateways.%s" $name -}}
{{- if hasPrefix "operator" $name }}{{ fail (printf "%s: the Service's name would be the operator's or look like it; choose another" $where) }}{{ end -}}
{{- $scale := $one.autoscaling -}}
{{- if $scale.enabled -}}
{{- if gt (int $scale.minReplicas) (int $scale.maxReplicas) }}{{ fail (printf "%s.autoscaling: minReplicas %d is more than maxReplicas %d" $where (int $scale.minReplicas) (int $scale.maxReplicas)) }}{{ end -}}
{{- if not (or $scale.requestsInFlight $scale.cpuPercent) }}{{ fail (printf "%s.autoscaling: set requestsInFlight or cpuPercent; there is nothing to scale by" $where) }}{{ end -}}
{{- if and $scale.cpuPercent (not (dig "requests" "cpu" "" $one.resources)) }}{{ fail (printf "%s.autoscaling: cpuPercent is a share of resources.requests.cpu, which is not set" $where) }}{{ end -}}
{{- end -}}
{{- $grace := add $one.preStopSleepSeconds $one.lingerSeconds $one.drainSeconds 5 -}}
{{- $suffix := ternary "" (printf "-%s" $name) (eq $name "default") -}}
{{- $_ := set $one "service_name" (printf "%s%s" $fullname $suffix) -}}
{{- $_ := set $one "workload" (printf "%s-gateway%s" $fullname $suffix) -}}
{{- $_ := set $one "grace" $grace -}}
{{- $_ := set $all $name $one -}}
{{- end -}}
{{- if not $all }}{{ fail "gateways: there is none; nothing would serve requests" }}{{ end -}}
{{- toJson $all -}}
{{- end }}

{{/* What all sidecars have in common, as the operator's --sidecars reads it. */}}
{{- define "spillway.sidecars" -}}
{{- $namespace := .Release.Namespace -}}
{{- $all := include "spillway.gateways" . | fromJson -}}
{{- $own := .Values.sidecars -}}
{{- $urls := $own.gatewayURLs | default dict -}}
{{- range $name, $_ := $urls }}{{ if not (hasKey $all $name) }}{{ fail (printf "sidecars.gatewayURLs: there is no gateway %s" $name) }}{{ end }}{{ end -}}
{{- $gateways := dict -}}
{{- range $name, $one := $all -}}
{{- $port := ternary "" (printf ":%d" (int $one.service.port)) (eq (int $one.service.port) 80) -}}
{{- $_ := set $gateways $name (get $urls $name | default (printf "http://%s.%s.svc%s" $one.service_name $namespace $port)) -}}
{{- end -}}
{{- dict
  "image" (include "spillway.image" (dict "root" $ "of" "balancer"))
  "pullPolicy" .Values.image.pullPolicy
  "pullSecrets" ($own.pullSecrets | default list)
  "operator" (printf "https://%s-operator.%s.svc:9443" (include "spillway.fullname" .) $namespace)
  "gateways" $gateways
  "resources" $own.resources | toJson -}}
{{- end }}

{{/* What the operator may do where it serves objects: everywhere, or in each of watchNamespaces. */}}
{{- define "spillway.watchRules" -}}
- apiGroups: [spillway.dev]
  resources: [modelpools, routepolicies]
  verbs: [list, watch]
- apiGroups: [spillway.dev]
  resources: [modelpools/status, routepolicies/status]
  verbs: [patch]
# Where engines are.
- apiGroups: [""]
  resources: [pods, services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [list, watch]
# The ConfigMaps that objects refer to, by name: authorities that TLS is to believe (spec.tls).
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- if (.Values.sidecars).enabled }}
# The authority that sidecars trust: a ConfigMap of one name in each namespace with sidecars.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [spillway-ca]
  verbs: [list, create, patch]
# The condition of Pods that asked for a sidecar and lack it.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
# The Secrets that they refer to, by name. Never list or watch: those would show all of them.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- if .Values.consumers.enabled }}
# But for consumers, who are found by their labels: no rule can bind that to labels.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list]
{{- end }}
{{- if .Values.scaling.enabled }}
# Workloads behind pools (spec.scaling): how many replicas they have, and waking those from zero.
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [get, patch]
{{- range .Values.scaling.kinds }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource }}/scale]
  verbs: [get, patch]
{{- end }}
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
