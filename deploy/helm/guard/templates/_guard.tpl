{{- /*
Guard's container and its volumes. A chart that runs its own pod takes them from here (mode embedded):

  initContainers:
    - {{ include "guard.sidecar" .Subcharts.guard | nindent 6 | trim }}
  volumes:
    {{ include "guard.volumes" .Subcharts.guard | nindent 4 }}
*/ -}}
{{- define "guard.upstream" -}}
{{- if eq .Values.mode "gateway" -}}
{{- $urls := list -}}
{{- range .Values.upstreams -}}{{- $urls = append $urls (ternary (printf "%s=%s" .name .url) .url (not (empty .name))) -}}{{- end -}}
{{- join " " $urls -}}
{{- else -}}http://127.0.0.1:{{ .Values.model.port }}
{{- end -}}
{{- end -}}

{{- define "guard.probe" -}}
{{- if eq .root.Values.admin.address "127.0.0.1" -}}
exec: {command: [/opt/guard/bin/python, -I, /opt/guard/healthcheck.py]}
{{- else -}}
httpGet: {path: {{ .path }}, port: admin{{ if .root.Values.tls.admin }}, scheme: HTTPS{{ end }}}
{{- end -}}
{{- end -}}

{{- define "guard.container" -}}
{{- $v := .Values -}}
name: guard
image: {{ $v.image.repository }}{{ if $v.image.digest }}@{{ $v.image.digest }}{{ else }}:{{ default .Chart.AppVersion $v.image.tag }}{{ end }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args: {{ concat (list "serve") $v.extraArgs | toJson }}
env:
  - {name: GUARD_POLICY, value: {{ default "/etc/guard/policy/policy.yaml" $v.policy.preset | quote }}}
  - {name: GUARD_UPSTREAM, value: {{ include "guard.upstream" . | quote }}}
  - {name: GUARD_LISTEN, value: "{{ ternary "[::]" "0.0.0.0" (eq $v.admin.address "::") }}:{{ $v.port }}"}
  - {name: GUARD_ADMIN, value: "{{ ternary "[::]" $v.admin.address (eq $v.admin.address "::") }}:{{ $v.admin.port }}"}
  - {name: GUARD_SECRET_FILE, value: "/etc/guard/secrets/{{ $v.secrets.noiseKey }}"}
  {{- if $v.secrets.adminTokenKey }}
  - {name: GUARD_ADMIN_TOKEN_FILE, value: "/etc/guard/secrets/{{ $v.secrets.adminTokenKey }}"}
  {{- end }}
  {{- if eq $v.state.kind "redis" }}
  - name: GUARD_STATE
    valueFrom: {secretKeyRef: {name: {{ $v.secrets.existingSecret }}, key: {{ $v.secrets.redisUrlKey }}}}
  {{- else }}
  - {name: GUARD_STATE, value: {{ ternary "sqlite:/var/lib/guard/guard.db" "memory:" (eq $v.state.kind "sqlite") | quote }}}
  {{- end }}
  {{- with $v.policy.api }}
  - {name: GUARD_API, value: {{ . | quote }}}
  {{- end }}
  {{- if $v.tls.existingSecret }}
  - {name: GUARD_TLS_CERT, value: /etc/guard/tls/tls.crt}
  - {name: GUARD_TLS_KEY, value: /etc/guard/tls/tls.key}
  {{- if $v.tls.admin }}
  - {name: GUARD_ADMIN_TLS, value: "yes"}
  {{- end }}
  {{- if ne $v.tls.clients "off" }}
  - {name: GUARD_TLS_CLIENT_CA, value: /etc/guard/tls/ca.crt}
  {{- end }}
  {{- if eq $v.tls.clients "required" }}
  - {name: GUARD_TLS_CLIENT_REQUIRED, value: "yes"}
  {{- end }}
  {{- end }}
  {{- if ne $v.audit.to "none" }}
  - {name: GUARD_AUDIT, value: {{ ternary "file:/var/lib/guard/audit.jsonl" "stdout" (eq $v.audit.to "file") | quote }}}
  {{- end }}
  {{- if $v.tracing.enabled }}
  - {name: GUARD_TRACING, value: "yes"}
  {{- end }}
  - {name: GUARD_LOG_LEVEL, value: {{ $v.logLevel }}}
  - {name: GUARD_LOG_FORMAT, value: json}
  {{- with $v.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: guard, containerPort: {{ $v.port }}, protocol: TCP}
  {{- if ne $v.admin.address "127.0.0.1" }}
  - {name: admin, containerPort: {{ $v.admin.port }}, protocol: TCP}
  {{- end }}
startupProbe:
  {{- include "guard.probe" (dict "root" . "path" "/healthz") | nindent 2 }}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  {{- include "guard.probe" (dict "root" . "path" "/healthz") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  {{- include "guard.probe" (dict "root" . "path" $v.probes.readiness) | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
resources:
  {{- toYaml $v.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  {{- if not $v.policy.preset }}
  # A directory: the kubelet does not update what is mounted with subPath.
  - {name: guard-policy, mountPath: /etc/guard/policy, readOnly: true}
  {{- end }}
  - {name: guard-secrets, mountPath: /etc/guard/secrets, readOnly: true}
  {{- if $v.tls.existingSecret }}
  - {name: guard-tls, mountPath: /etc/guard/tls, readOnly: true}
  {{- end }}
  - {name: guard-state, mountPath: /var/lib/guard}
  - {name: guard-tmp, mountPath: /tmp}
{{- end -}}

{{- /* A native sidecar starts before the model, outlives it, and keeps its own probes. */ -}}
{{- define "guard.sidecar" -}}
{{- include "guard.checks" . -}}
{{- include "guard.container" . }}
restartPolicy: Always
{{- end -}}

{{- define "guard.volumes" -}}
{{- $v := .Values -}}
{{- if not $v.policy.preset -}}
- name: guard-policy
  configMap: {name: {{ include "guard.policyConfigMap" . }}}
{{ end -}}
# Guard's user is not root and the pod's group is the model's business, so files are readable for all of Guard's container.
- name: guard-secrets
  secret: {secretName: {{ $v.secrets.existingSecret }}, defaultMode: 0444}
{{- if $v.tls.existingSecret }}
- name: guard-tls
  secret: {secretName: {{ $v.tls.existingSecret }}, defaultMode: 0444}
{{- end }}
- name: guard-state
{{- if $v.state.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ include "guard.claim" . }}}
{{- else }}
  emptyDir: {sizeLimit: 1Gi}
{{- end }}
- name: guard-tmp
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- end -}}
