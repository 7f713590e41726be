{{- define "guard.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The Service that Prometheus scrapes is the metrics' `job`; the alert GuardDown looks for "guard" in it. */ -}}
{{- define "guard.adminName" -}}
{{- $name := include "guard.fullname" . -}}
{{- if contains "guard" $name -}}{{ $name }}-admin{{- else -}}{{ $name }}-guard-admin{{- end -}}
{{- end -}}

{{- define "guard.selector" -}}
{{- if eq .Values.mode "embedded" -}}
{{- toYaml (required "embedded.selector is missing: the labels of the pods that your chart runs" .Values.embedded.selector) -}}
{{- else -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- end -}}

{{- define "guard.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "guard.policyConfigMap" -}}
{{- default (printf "%s-policy" (include "guard.fullname" .)) .Values.policy.existingConfigMap -}}
{{- end -}}

{{- define "guard.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ default (include "guard.fullname" .) .Values.serviceAccount.name }}
{{- else -}}{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "guard.claim" -}}
{{- default (printf "%s-state" (include "guard.fullname" .)) .Values.state.persistence.existingClaim -}}
{{- end -}}
