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
{{- $root := first . -}}
{{ include "car-analyzer.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "car-analyzer.name" $root }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "car-analyzer.image" -}}
{{- $root := first . -}}{{- $image := last . -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- define "car-analyzer.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "car-analyzer.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What the pods of both components have in common; (list . "triton"). */}}
{{- define "car-analyzer.pod" -}}
{{- $root := first . -}}{{- $component := last . -}}
{{- with get $root.Values $component -}}
serviceAccountName: {{ include "car-analyzer.serviceAccount" $root }}
automountServiceAccountToken: false
# Their variables would be read as settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .terminationGracePeriodSeconds }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .spread }}
topologySpreadConstraints:
  {{- include "car-analyzer.spread" (list $root $component .) | trim | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "car-analyzer.podMetadata" -}}
{{- $root := first . -}}{{- $component := last . -}}
{{- with get $root.Values $component -}}
labels:
  {{- include "car-analyzer.labels" (list $root $component) | nindent 2 }}
  {{- with .podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ $component }}
  {{- with .podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* An autoscaler keeps the number of replicas that are alive: without this line, Helm would reset it to 1. */}}
{{- define "car-analyzer.liveReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" (first .).Release.Namespace (last .) -}}
{{- with ($live.spec).replicas -}}
replicas: {{ . }}
{{- end }}
{{- end }}

{{- /* The secrets of Triton's and of the gateway's certificate: yours, or cert-manager's. */}}
{{- define "car-analyzer.serverSecret" -}}
{{- $tls := .Values.tls -}}
{{- if or $tls.secret $tls.issuer.name -}}
{{ default (printf "%s-triton-tls" (include "car-analyzer.fullname" .)) $tls.secret }}
{{- end }}
{{- end }}

{{- define "car-analyzer.clientSecret" -}}
{{- $tls := .Values.tls -}}
{{- if or $tls.clientSecret (and $tls.mutual $tls.issuer.name) -}}
{{ default (printf "%s-gateway-tls" (include "car-analyzer.fullname" .)) $tls.clientSecret }}
{{- end }}
{{- end }}

{{- /* A probe of Triton's HTTP, which listens on 127.0.0.1 only if gRPC is encrypted. */}}
{{- define "car-analyzer.readyProbe" -}}
{{- if include "car-analyzer.serverSecret" . -}}
exec:
  command: [healthcheck.py, "http://127.0.0.1:8000/v2/models/car_analyzer/ready"]
{{- else -}}
httpGet: {path: /v2/models/car_analyzer/ready, port: http}
{{- end }}
periodSeconds: 5
timeoutSeconds: 5
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
{{- $pods := printf `namespace="%s",pod=~"%s-triton-.+",model!~"car_analyzer.*"` .Release.Namespace (include "car-analyzer.fullname" .) -}}
sum(rate(nv_inference_queue_duration_us{ {{- $pods -}} }[1m])) / 1e6 / (sum(rate(nv_inference_request_success{ {{- $pods -}} }[1m])) > 0) or vector(0)
{{- end }}
