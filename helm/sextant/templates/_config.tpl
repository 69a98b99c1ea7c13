{{/* The server's TOML file. Helm's own toToml writes 262144 as 262144.0, which the server refuses. */}}

{{- define "sextant.tomlValue" -}}
{{- if kindIs "string" . }}
{{- toJson . }}
{{- else if kindIs "bool" . }}
{{- . }}
{{- else if eq (float64 .) (float64 (int64 .)) }}
{{- int64 . }}
{{- else }}
{{- printf "%v" . }}
{{- end }}
{{- end }}

{{/* The cache is a folder that the server makes in the volume: it takes none that other users can write, and every user can write the volume. */}}
{{- define "sextant.toml" -}}
{{- $set := dict
  "listen" (include "sextant.address" (list .Values.listenAddress .Values.ports.data))
  "admin_listen" (include "sextant.address" (list .Values.listenAddress .Values.ports.admin))
  "drain_delay" (printf "%ds" (int .Values.drain.delaySeconds))
  "drain_timeout" (printf "%ds" (int .Values.drain.timeoutSeconds))
  "liveness_deadline" (printf "%ds" (int .Values.probes.liveness.deadlineSeconds))
  "models" (include "sextant.models" .)
  "cache_dir" "/cache/versions"
  "cache_dir_bytes" .Values.cache.bytes
  "device" (include "sextant.device" .)
-}}
{{- if include "sextant.hasKeys" . }}
{{- $_ := set $set "keys_file" "/etc/sextant/keys/keys.toml" }}
{{- end }}
{{- range $name, $value := .Values.config }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{- $_ := set $set $name $value }}
{{- end }}
{{- end }}
{{- range $name, $value := $set }}
{{ $name }} = {{ include "sextant.tomlValue" $value }}
{{- end }}
{{- range $table, $values := .Values.config }}
{{- if kindIs "map" $values }}

[{{ $table }}]
{{- range $name, $value := $values }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }} = {{ include "sextant.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
What the server computes on, by name and never `auto`: a pod that reserved GPUs must end rather than serve on its processor, and one that
reserved none must not take those that some nodes' runtimes show to every container. A kind without a number stands for all of them.
*/}}
{{- define "sextant.device" -}}
{{- with .Values.gpu }}
{{- $device := default (ternary "cuda" "cpu" .enabled) .device }}
{{- if and .enabled (has $device (list "cuda" "tensorrt")) }}
{{- $each := list }}
{{- range until (int .count) }}{{ $each = append $each (printf "%s:%d" $device .) }}{{ end }}
{{- $device = join "," $each }}
{{- end }}
{{- $device }}
{{- end }}
{{- end }}

{{/* Certificates: the server's table `tls`, each with a directory of its own. */}}
{{- define "sextant.tlsToml" -}}
{{- with .Values.tls }}
{{- if or .secret .adminSecret }}

[tls]
{{- if .secret }}
cert = "/etc/sextant/tls/tls.crt"
key = "/etc/sextant/tls/tls.key"
{{- end }}
{{- if .adminSecret }}
admin_cert = "/etc/sextant/admin-tls/tls.crt"
admin_key = "/etc/sextant/admin-tls/tls.key"
{{- end }}
{{- if .clientCaSecret }}
admin_client_ca = "/etc/sextant/client-ca/ca.crt"
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sextant.address" -}}
{{- $host := index . 0 }}
{{- if contains ":" $host }}{{ $host = printf "[%s]" $host }}{{ end }}
{{- printf "%s:%d" $host (int (index . 1)) }}
{{- end }}

{{- define "sextant.models" -}}
{{- default "/models" .Values.repository.bucket.url }}
{{- end }}
