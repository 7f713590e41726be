{{- /* What the schema cannot say: values that do not go together. */ -}}
{{- define "guard.checks" -}}
{{- $v := .Values -}}
{{- $container := default dict $v.model.container -}}
{{- if not $v.secrets.existingSecret -}}
{{- fail "secrets.existingSecret is missing. Make one: kubectl create secret generic guard --from-literal=noise-secret=$(openssl rand -hex 32) --from-literal=admin-token=$(openssl rand -hex 32) --from-literal=redis-url=redis://:PASSWORD@redis:6379/0" -}}
{{- end -}}
{{- if not $v.secrets.noiseKey -}}
{{- fail "secrets.noiseKey is missing: replicas, and a pod after its restart, need the same noise secret" -}}
{{- end -}}
{{- if and (not $v.secrets.adminTokenKey) (ne $v.admin.address "127.0.0.1") -}}
{{- fail "admin.address is not 127.0.0.1, so the admin listener needs a token: secrets.adminTokenKey" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (eq $v.admin.address "127.0.0.1") -}}
{{- fail "metrics.serviceMonitor scrapes the pod: admin.address cannot be 127.0.0.1" -}}
{{- end -}}
{{- if and (eq $v.state.kind "redis") (not $v.secrets.redisUrlKey) -}}
{{- fail "state.kind redis needs secrets.redisUrlKey: the key of existingSecret that holds redis://..." -}}
{{- end -}}
{{- if and (ne $v.state.kind "redis") (or (gt (int $v.replicas) 1) $v.autoscaling.enabled) -}}
{{- fail (printf "state.kind %s is one replica's own: several would each grant the whole budget. Set replicas: 1, or state.kind: redis" $v.state.kind) -}}
{{- end -}}
{{- if and $v.state.persistence.enabled (ne $v.state.kind "sqlite") (ne $v.audit.to "file") -}}
{{- fail "state.persistence keeps a sqlite ledger or an audit file; there is neither" -}}
{{- end -}}
{{- if and $v.state.persistence.enabled (or (gt (int $v.replicas) 1) $v.autoscaling.enabled) -}}
{{- fail "state.persistence is one volume for one replica" -}}
{{- end -}}
{{- if ne 1 (len (compact (list $v.policy.preset $v.policy.inline $v.policy.existingConfigMap))) -}}
{{- fail "policy needs one of preset, inline and existingConfigMap" -}}
{{- end -}}
{{- if and $v.policy.files (not $v.policy.inline) -}}
{{- fail "policy.files stand beside policy.inline, which is missing" -}}
{{- end -}}
{{- if and (eq $v.mode "sidecar") (not $container.image) -}}
{{- fail "mode sidecar runs your model: model.container.image is missing" -}}
{{- end -}}
{{- if and (ne $v.mode "sidecar") $v.model.container -}}
{{- fail (printf "mode %s does not run the model: model.container is for mode sidecar" $v.mode) -}}
{{- end -}}
{{- if eq $v.mode "gateway" -}}
{{- if not $v.upstreams -}}{{- fail "mode gateway needs upstreams: [{url: http://model:8080}]" -}}{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.gateway.modelSelector) -}}
{{- fail "mode gateway needs gateway.modelSelector, the labels of the model's pods, to leave them to Guard alone; networkPolicy.enabled: false leaves them open" -}}
{{- end -}}
{{- else if $v.upstreams -}}
{{- fail (printf "mode %s asks the model in its own pod: upstreams are for mode gateway" $v.mode) -}}
{{- end -}}
{{- if and (eq $v.mode "embedded") (not $v.embedded.selector) -}}
{{- fail "mode embedded needs embedded.selector, the labels of the pods that your chart runs" -}}
{{- end -}}
{{- if and (ne $v.mode "gateway") (has (int $v.model.port) (list (int $v.port) (int $v.admin.port))) -}}
{{- fail (printf "model.port %d is Guard's own: the model needs another one" (int $v.model.port)) -}}
{{- end -}}
{{- if and (or $v.tls.admin (ne $v.tls.clients "off")) (not $v.tls.existingSecret) -}}
{{- fail "tls.clients and tls.admin need a certificate: tls.existingSecret is missing" -}}
{{- end -}}
{{- range $container.volumeMounts -}}
{{- if hasPrefix "guard-" .name -}}{{- fail (printf "volume %s is Guard's" .name) -}}{{- end -}}
{{- end -}}
{{- if le (int $v.terminationGracePeriodSeconds) (int $v.preStopSeconds) -}}
{{- fail "terminationGracePeriodSeconds must be longer than preStopSeconds and the policy's limits.drain_s together" -}}
{{- end -}}
{{- end -}}
