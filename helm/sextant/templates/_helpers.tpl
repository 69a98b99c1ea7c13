{{/* Names, labels, and what cannot be told from a value's type alone. */}}

{{- define "sextant.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 44 characters at most: Jobs add up to 18, and Deployments' pods need room for a hash. */}}
{{- define "sextant.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- $name := include "sextant.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of this release: the server's pods and the jobs'. */}}
{{- define "sextant.releaseLabels" -}}
app.kubernetes.io/name: {{ include "sextant.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What selects the server's pods. A Service must never find a job's pod. */}}
{{- define "sextant.selectorLabels" -}}
{{ include "sextant.releaseLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{/* dict "root" . "component" "server" */}}
{{- define "sextant.labels" -}}
{{ include "sextant.releaseLabels" .root }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sextant.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sextant.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sextant.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "sextant.volumeClaim" -}}
{{- default (include "sextant.fullname" .) .Values.repository.volume.existingClaim }}
{{- end }}

{{/* Empty where the repository is a bucket, or somebody else's volume. */}}
{{- define "sextant.createsVolume" -}}
{{- if not (or .Values.repository.bucket.url .Values.repository.volume.existingClaim) }}true{{ end }}
{{- end }}

{{/* A volume that only one node can have at a time: two pods on two nodes would wait for each other. */}}
{{- define "sextant.volumeOfOneNode" -}}
{{- if not (or .Values.repository.bucket.url (has "ReadWriteMany" .Values.repository.volume.accessModes)) }}true{{ end }}
{{- end }}

{{/* Whether an import has a key to sign with, by a flag or a variable. */}}
{{- define "sextant.importSigns" -}}
{{- range .Values.import.args }}
{{- if or (eq . "--sign") (hasPrefix "--sign=" .) }}true{{ end }}
{{- end }}
{{- range concat .Values.import.env .Values.extraEnv }}
{{- if eq .name "SEXTANT_SIGN" }}true{{ end }}
{{- end }}
{{- end }}

{{- define "sextant.hasKeys" -}}
{{- if or .Values.keys.entries .Values.keys.existingSecret }}true{{ end }}
{{- end }}

{{- define "sextant.keysSecret" -}}
{{- default (printf "%s-keys" (include "sextant.fullname" .)) .Values.keys.existingSecret }}
{{- end }}

{{/* Where what this chart runs finds its keys; empty if nowhere. */}}
{{- define "sextant.clientSecret" -}}
{{- default .Values.keys.existingSecret .Values.keys.clients.secret }}
{{- end }}

{{- define "sextant.dataScheme" -}}
{{ empty .Values.tls.secret | ternary "http" "https" }}
{{- end }}

{{- define "sextant.adminScheme" -}}
{{ and (empty .Values.tls.secret) (empty .Values.tls.adminSecret) | ternary "http" "https" }}
{{- end }}

{{/* Name and Secret of what the server mounts for TLS, below /etc/sextant. */}}
{{- define "sextant.tlsMounts" -}}
{{- with .Values.tls }}
{{- dict "tls" .secret "admin-tls" .adminSecret "client-ca" .clientCaSecret | toYaml }}
{{- end }}
{{- end }}

{{/* The same for the canary's job. */}}
{{- define "sextant.clientTlsMounts" -}}
{{- with .Values.tls }}
{{- dict "ca" .caSecret "client-tls" .clientSecret | toYaml }}
{{- end }}
{{- end }}

{{- define "sextant.adminUrl" -}}
{{ include "sextant.adminScheme" . }}://{{ include "sextant.fullname" . }}-admin:{{ .Values.adminService.port }}
{{- end }}

{{/* All that a stop may take, in seconds. */}}
{{- define "sextant.gracePeriod" -}}
{{- $needed := add .Values.drain.preStopSeconds .Values.drain.delaySeconds .Values.drain.timeoutSeconds }}
{{- $given := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $given }}
{{- add $needed 5 }}
{{- else if le (int $given) (int $needed) }}
{{- fail (printf "terminationGracePeriodSeconds is %v: the drain takes %v s, so it must be more, or null" $given $needed) }}
{{- else }}
{{- $given }}
{{- end }}
{{- end }}

{{/* Values that are right one by one and wrong together. */}}
{{- define "sextant.check" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling and keda are both enabled: two autoscalers on one Deployment work against each other, switch one off" }}
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.prometheus) }}
{{- fail "keda.prometheus is empty: KEDA reads the queue from a Prometheus, as http://prometheus.monitoring:9090" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.cpu .Values.autoscaling.queueTokens)) }}
{{- fail "autoscaling has neither cpu nor queueTokens: there is nothing to scale by" }}
{{- end }}
{{- range $name := list "autoscaling" "keda" }}
{{- with index $.Values $name }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "%s.minReplicas is above %s.maxReplicas" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $pods := int .Values.replicaCount }}
{{- if .Values.autoscaling.enabled }}{{ $pods = int .Values.autoscaling.maxReplicas }}{{ end }}
{{- if .Values.keda.enabled }}{{ $pods = int .Values.keda.maxReplicas }}{{ end }}
{{- if and (include "sextant.volumeOfOneNode" .) (gt $pods 1) }}
{{- fail (printf "%d pods cannot share a ReadWriteOnce volume over several nodes: use a bucket, accessModes: [ReadWriteMany], or one pod" $pods) }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if and .enabled (eq (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable)) }}
{{- fail "podDisruptionBudget needs one of minAvailable and maxUnavailable; set the other to null" }}
{{- end }}
{{- end }}
{{- if and .Values.keys.entries .Values.keys.existingSecret }}
{{- fail "keys has entries and existingSecret: which of them? Remove one" }}
{{- end }}
{{- if and .Values.monitor.enabled (include "sextant.hasKeys" .) (not (include "sextant.clientSecret" .)) }}
{{- fail "monitor needs keys.clients.secret: with keys, Prometheus must send one of the role metrics" }}
{{- end }}
{{- if and .Values.import.enabled (eq .Values.import.mode "Job") (include "sextant.volumeOfOneNode" .) }}
{{- fail "an import Job on another node than the server cannot have a ReadWriteOnce volume: set import.mode to InitContainer" }}
{{- end }}
{{- if and .Values.import.enabled (not (and .Values.import.name .Values.import.source)) }}
{{- fail "import needs a name and a source: set import.name and import.source" }}
{{- end }}
{{- if and .Values.import.enabled .Values.config.require_signed (not (include "sextant.importSigns" .)) }}
{{- fail "import makes its version the one that serves, and config.require_signed lets only a signed one: give import.args a --sign FILE, which extraVolumes bring, or switch import off and import where the key is" }}
{{- end }}
{{- if .Values.canary.enabled }}
{{- if not (include "sextant.hasKeys" .) }}
{{- fail "canary needs keys.existingSecret, or keys.entries and keys.clients.secret: without a key a server takes changes from its own pod only" }}
{{- end }}
{{- if not (include "sextant.clientSecret" .) }}
{{- fail "canary needs keys.clients.secret: a key of the role admin" }}
{{- end }}
{{- if not (and .Values.canary.model .Values.canary.version .Values.canary.reason) }}
{{- fail "canary needs a model, a version and a reason: the rollout log keeps all three" }}
{{- end }}
{{- if and (eq .Values.canary.action "trial") (not (or .Values.canary.percent .Values.canary.shadowPercent)) }}
{{- fail "a trial needs canary.percent or canary.shadowPercent" }}
{{- end }}
{{- end }}
{{- if contains "@" .Values.canary.model }}
{{- fail (printf "canary.model is %q: it is a name alone, the number goes into canary.version" .Values.canary.model) }}
{{- end }}
{{- with .Values.gpu }}
{{- if and .enabled (has .device (list "auto" "cpu")) }}
{{- fail (printf "gpu.enabled reserves a GPU, and with gpu.device %q the server may leave it idle: name cuda or tensorrt, or leave it empty" .device) }}
{{- end }}
{{- $devices := include "sextant.device" $ | splitList "," }}
{{- if and .enabled (ne (len $devices) (int .count)) }}
{{- fail (printf "gpu.device names %d and gpu.count reserves %d: a kind alone, as cuda, stands for all of them" (len $devices) (int .count)) }}
{{- end }}
{{- if ne (len $devices) (len (uniq $devices)) }}
{{- fail (printf "gpu.device is %q: a GPU is named twice" .device) }}
{{- end }}
{{- if and $.Values.import.enabled (eq $.Values.import.precision "int8") (not (has (first $devices) (list "auto" "cpu"))) }}
{{- fail (printf "import makes its version the one that serves, and int8 does not run on %s: set import.precision to fp16 or fp32" (first $devices)) }}
{{- end }}
{{- end }}
{{- if eq (int .Values.ports.data) (int .Values.ports.admin) }}
{{- fail (printf "ports.data and ports.admin are both %d: they must differ" (int .Values.ports.data)) }}
{{- end }}
{{- if regexMatch ":[^/]*$" .Values.image.repository }}
{{- fail (printf "image.repository is %q: the tag goes into image.tag" .Values.image.repository) }}
{{- end }}
{{- if and (eq .Values.service.type "ClusterIP") .Values.service.nodePort }}
{{- fail "service.nodePort needs service.type NodePort or LoadBalancer" }}
{{- end }}
{{- with .Values.repository }}
{{- if and .bucket.url .volume.existingClaim }}
{{- fail "repository has a bucket and an existingClaim: which of them? Remove one" }}
{{- end }}
{{- if and (not .bucket.url) (or .bucket.existingSecret .bucket.credentials .bucket.env) }}
{{- fail "repository.bucket has credentials or variables and no url" }}
{{- end }}
{{- range $name, $_ := .bucket.env }}
{{- if regexMatch "(SECRET|TOKEN$|_ACCOUNT_KEY|STORAGE_ACCESS_KEY|_SAS)" $name }}
{{- fail (printf "repository.bucket.env has %s, which is secret: put it into the Secret that existingSecret names" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.tls }}
{{- if and .clientCaSecret (not (or .secret .adminSecret)) }}
{{- fail "tls.clientCaSecret needs tls.secret or tls.adminSecret: without TLS there are no client certificates" }}
{{- end }}
{{- if and .clientCaSecret $.Values.canary.enabled (not .clientSecret) }}
{{- fail "canary needs tls.clientSecret: the admin port asks for a client certificate" }}
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute needs parentRefs: the Gateway that it belongs to" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress needs hosts" }}
{{- end }}
{{- end }}
