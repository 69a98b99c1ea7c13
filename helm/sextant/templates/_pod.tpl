{{/* What the server's pods and the jobs' have in common. */}}

{{- define "sextant.podBase" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "sextant.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
# A Service called sextant-... would put SEXTANT_... variables into every pod, which the server reads as settings.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{- define "sextant.containerBase" -}}
image: {{ include "sextant.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{/* Volumes and mounts of Secrets. Whole directories: a single file would not follow the Secret's changes. */}}
{{- define "sextant.secretVolumes" -}}
{{- range $name, $secret := . }}
{{- if $secret }}
- name: {{ $name }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}

{{- define "sextant.secretMounts" -}}
{{- range $name, $secret := . }}
{{- if $secret }}
- {name: {{ $name }}, mountPath: /etc/sextant/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* The bucket's variables, then the user's, which go over them. */}}
{{- define "sextant.env" -}}
{{- if .Values.repository.bucket.url }}
{{- range $name, $value := .Values.repository.bucket.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sextant.envFrom" -}}
{{- with .Values.repository.bucket }}
{{- if and .url .existingSecret }}
- secretRef: {name: {{ .existingSecret }}}
{{- end }}
{{- if and .url .credentials }}
- secretRef: {name: {{ include "sextant.fullname" $ }}-bucket}
{{- end }}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of whoever reads or writes the repository: the server and an import. */}}
{{- define "sextant.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.sizeLimit }}
- name: cache
  {{- if .Values.cache.volume }}
  {{- toYaml .Values.cache.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.cache.sizeLimit }}
  {{- end }}
{{- if not .Values.repository.bucket.url }}
- name: models
  persistentVolumeClaim:
    claimName: {{ include "sextant.volumeClaim" . }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sextant.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
{{- if not .Values.repository.bucket.url }}
- name: models
  mountPath: /models
  {{- with .Values.repository.volume.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Runs a command that writes to a model's rollout log, unless the log has its mark: an upgrade that changes nothing must not import
the same model again, nor put back on trial what the guard took back. The mark is a digest of the values, in the reason; an empty
one is in every log that has a document.
dict "command" (list sextant) "model" NAME "mark" MARK "at" (list "--models" URL) "run" (list of arguments)
*/}}
{{- define "sextant.once" -}}
command: [sh, -euc]
args:
  - |
    model=$1 mark=$2 flag=$3 place=$4
    shift 4
    if log=$({{ join " " .command }} history --json "$model" "$flag" "$place" 2>&1); then
        case $log in *"$mark"*) echo "nothing to do: ${mark:-a version} is in the log of $model"; exit 0 ;; esac
    else
        # A model without a log is one thing, a log that cannot be read another: that must not count as empty.
        case $log in *"was ever rolled out"*) ;; *) echo "$log" >&2; exit 1 ;; esac
    fi
    told=$({{ join " " .command }} "$@" 2>&1) && code=0 || code=$?
    echo "$told"
    # Another try would make another version: 3 ends the Job.
    case $told in *"is imported, but "*) exit 3 ;; esac
    exit $code
  - once
  {{- concat (list .model .mark) .at .run | toYaml | nindent 2 }}
{{- end }}

{{- define "sextant.mark" -}}
helm:{{ toJson . | sha256sum | trunc 12 }}
{{- end }}

{{- define "sextant.importMark" -}}
{{- include "sextant.mark" (pick .Values.import "name" "source" "precision" "args" "reason") }}
{{- end }}

{{- define "sextant.importContainer" -}}
{{- $import := .Values.import }}
{{- $mark := include "sextant.importMark" . }}
- name: import
  {{- include "sextant.containerBase" . | nindent 2 }}
  {{- include "sextant.once" (dict
    "command" .Values.command
    "model" $import.name
    "mark" (eq $import.mode "Job" | ternary $mark "")
    "at" (list "--models" (include "sextant.models" .))
    "run" (concat (list "import" $import.source "--models" (include "sextant.models" .) "--name" $import.name
      "--precision" $import.precision "--activate" "--reason" (printf "%s (%s)" $import.reason $mark)) $import.args)
  ) | nindent 2 }}
  env:
    # A checkpoint and the version made of it are too much for /tmp.
    - {name: SEXTANT_CACHE, value: /cache/hub}
    - {name: TMPDIR, value: /cache}
    - {name: USER, value: {{ printf "helm release %s" .Release.Name | quote }}}
    {{- with .Values.config.require_signed }}
    # A key that the servers do not trust is told before the work is done.
    - {name: SEXTANT_REQUIRE_SIGNED, value: {{ . | quote }}}
    {{- end }}
    {{- with include "sextant.env" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $import.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "sextant.envFrom" . | trim }}
  envFrom:
    {{- . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $import.resources | nindent 4 }}
  volumeMounts:
    {{- include "sextant.volumeMounts" . | nindent 4 }}
{{- end }}
