{{- define "car-analyzer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "car-analyzer.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "car-analyzer.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "car-analyzer.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* What pods of a component are chosen by; (list . "triton"). */}}
{{- define "car-analyzer.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "car-analyzer.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "car-analyzer.labels" -}}
{{ include "car-analyzer.selector" . }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | quote }}
{{- end }}

{{- define "car-analyzer.image" -}}
{{- $root := first . -}}{{- $image := last . -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}

{{- define "car-analyzer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "car-analyzer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Soft: a pod on a full node beats a pod that waits. (list . "triton" keys) */}}
{{- define "car-analyzer.spread" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- range index . 2 }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "car-analyzer.selector" (list $root $component) | nindent 6 }}
{{- end }}
{{- end }}

{{- /* Seconds that a request waits in a step's queue, on average over requests, not over models. */}}
{{- define "car-analyzer.queueQuery" -}}
{{- $pods := printf `namespace="%s",pod=~"%s-triton-.+",model!="car_analyzer"` .Release.Namespace (include "car-analyzer.fullname" .) -}}
sum(rate(nv_inference_queue_duration_us{ {{- $pods -}} }[1m])) / 1e6 / (sum(rate(nv_inference_request_success{ {{- $pods -}} }[1m])) > 0) or vector(0)
{{- end }}
