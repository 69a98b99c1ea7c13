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
{{- $modes := .Values.repository.volume.accessModes }}
{{- if and (include "sextant.createsVolume" .) (not (has "ReadWriteMany" $modes)) }}true{{ end }}
{{- end }}

{{- define "sextant.hasAdminKeys" -}}
{{- if or .Values.adminKeys.keys .Values.adminKeys.existingSecret }}true{{ end }}
{{- end }}

{{- define "sextant.adminSecret" -}}
{{- default (printf "%s-admin" (include "sextant.fullname" .)) .Values.adminKeys.existingSecret }}
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
{{- fail (printf "terminationGracePeriodSeconds is %v: the drain needs more than its %v seconds, or requests are cut off" $given $needed) }}
{{- else }}
{{- $given }}
{{- end }}
{{- end }}

{{/* Values that are right one by one and wrong together. */}}
{{- define "sextant.check" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling and keda are both enabled: two autoscalers on one Deployment work against each other" }}
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.prometheus) }}
{{- fail "keda.prometheus is empty: KEDA reads the queue from a Prometheus" }}
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
{{- with .Values.adminKeys }}
{{- if and .keys .existingSecret }}
{{- fail "adminKeys has keys and existingSecret: which of them?" }}
{{- end }}
{{- if and .client (not (hasKey .keys .client)) }}
{{- fail (printf "adminKeys.client is %q, which is no name in adminKeys.keys" .client) }}
{{- end }}
{{- end }}
{{- if and .Values.import.enabled (eq .Values.import.mode "Job") (include "sextant.volumeOfOneNode" .) }}
{{- fail "an import Job on another node than the server cannot have a ReadWriteOnce volume: set import.mode to InitContainer" }}
{{- end }}
{{- if and .Values.import.enabled (not (and .Values.import.name .Values.import.source)) }}
{{- fail "import needs a name and a source" }}
{{- end }}
{{- if .Values.canary.enabled }}
{{- if not (include "sextant.hasAdminKeys" .) }}
{{- fail "canary needs adminKeys: without a key a server takes changes from its own pod only" }}
{{- end }}
{{- if and .Values.adminKeys.keys (not .Values.adminKeys.client) }}
{{- fail "canary needs adminKeys.client: the name of the key that it uses" }}
{{- end }}
{{- if not (and .Values.canary.model .Values.canary.version .Values.canary.reason) }}
{{- fail "canary needs a model, a version and a reason: the rollout log keeps all three" }}
{{- end }}
{{- if and (eq .Values.canary.action "trial") (not (or .Values.canary.percent .Values.canary.shadowPercent)) }}
{{- fail "a trial needs canary.percent or canary.shadowPercent" }}
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
