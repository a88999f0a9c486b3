{{/* Beginning of all names; 63 characters less the longest service name. */}}
{{- define "tidegate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 38 | trimSuffix "-" }}
{{- end }}

{{/* Labels that never change: (dict "root" $ "component" "gateway" "part" "…"). */}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .part }}
tidegate.dev/workload: {{ . }}
{{- end }}
{{- end }}

{{- define "tidegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: tidegate
{{ include "tidegate.selector" . }}
{{- end }}

{{- define "tidegate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tidegate.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* What all pods have in common. */}}
{{- define "tidegate.pod" -}}
serviceAccountName: {{ include "tidegate.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tidegate.container" -}}
image: {{ include "tidegate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{ include "tidegate.containerSecurity" . }}
{{- end }}

{{- define "tidegate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Where pods go: (dict "root" $ "values" .Values.gateway "component" … "part" …). */}}
{{- define "tidegate.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread }}
  - labelSelector:
      matchLabels: {{- include "tidegate.selector" $ | nindent 8 }}
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "tidegate.natsUrl" -}}
{{- if .Values.nats.bundled.enabled }}nats://{{ include "tidegate.fullname" . }}-nats:4222{{ else }}{{ .Values.nats.url }}{{ end }}
{{- end }}

{{/* Key of a user's credentials: (dict "root" $ "user" "gateway"). */}}
{{- define "tidegate.credentialsKey" -}}
{{- default (printf "%s.creds" .user) .root.Values.nats.credentials.key }}
{{- end }}

{{/* How a process reaches NATS. */}}
{{- define "tidegate.natsEnv" -}}
{{- $nats := .root.Values.nats }}
- name: NATS_URL
  {{- if and $nats.urlSecret.name (not $nats.bundled.enabled) }}
  valueFrom:
    secretKeyRef: { name: {{ $nats.urlSecret.name }}, key: {{ $nats.urlSecret.key }} }
  {{- else }}
  value: {{ include "tidegate.natsUrl" .root | quote }}
  {{- end }}
{{- if $nats.credentials.secret }}
- name: NATS_CREDS
  value: /etc/tidegate/nats/{{ include "tidegate.credentialsKey" . }}
{{- end }}
{{- if $nats.tls.caSecret }}
- name: NATS_CA
  value: /etc/tidegate/nats-ca/{{ $nats.tls.caKey }}
{{- end }}
{{- if $nats.tls.clientSecret }}
- name: NATS_CERT
  value: /etc/tidegate/nats-client/tls.crt
- name: NATS_KEY
  value: /etc/tidegate/nats-client/tls.key
{{- end }}
{{- end }}

{{- define "tidegate.natsMounts" -}}
{{- $nats := .root.Values.nats }}
{{- if $nats.credentials.secret }}
- { name: nats-credentials, mountPath: /etc/tidegate/nats, readOnly: true }
{{- end }}
{{- if $nats.tls.caSecret }}
- { name: nats-ca, mountPath: /etc/tidegate/nats-ca, readOnly: true }
{{- end }}
{{- if $nats.tls.clientSecret }}
- { name: nats-client, mountPath: /etc/tidegate/nats-client, readOnly: true }
{{- end }}
{{- end }}

{{- define "tidegate.natsVolumes" -}}
{{- $nats := .root.Values.nats }}
{{- if $nats.credentials.secret }}
- name: nats-credentials
  secret:
    secretName: {{ $nats.credentials.secret }}
    defaultMode: 0440
    items:
      - { key: {{ include "tidegate.credentialsKey" . }}, path: {{ include "tidegate.credentialsKey" . }} }
{{- end }}
{{- if $nats.tls.caSecret }}
- name: nats-ca
  secret:
    secretName: {{ $nats.tls.caSecret }}
    items:
      - { key: {{ $nats.tls.caKey }}, path: {{ $nats.tls.caKey }} }
{{- end }}
{{- if $nats.tls.clientSecret }}
- name: nats-client
  secret: { secretName: {{ $nats.tls.clientSecret }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{/* "true" where tables other than the built-in ones are given; fails on half of them. */}}
{{- define "tidegate.hasTables" -}}
{{- $tables := .Values.tables }}
{{- $routes := or $tables.routes $tables.existingRoutes.configMap }}
{{- $descriptors := or $tables.descriptors $tables.descriptorSets $tables.existingDescriptors.configMap }}
{{- if and $routes (not $descriptors) }}
{{- fail "`tables` has routes but no descriptors: give `tables.descriptors`, `tables.descriptorSets` or `tables.existingDescriptors`" }}
{{- else if and $descriptors (not $routes) }}
{{- fail "`tables` has descriptors but no routes: give `tables.routes` or `tables.existingRoutes`" }}
{{- else if $routes }}true{{ end }}
{{- end }}

{{/* A path as a ConfigMap's key: `/` is not allowed there. */}}
{{- define "tidegate.fileKey" -}}
{{- . | replace "/" "." }}
{{- end }}

{{- define "tidegate.tableEnv" -}}
{{- if include "tidegate.hasTables" . }}
- { name: TIDEGATE_ROUTES, value: /etc/tidegate/routes/routes.yaml }
- { name: TIDEGATE_DESCRIPTORS, value: /etc/tidegate/descriptors }
{{- end }}
{{- end }}

{{/* Folders, never `subPath`: those do not follow a ConfigMap's changes. */}}
{{- define "tidegate.tableMounts" -}}
{{- if include "tidegate.hasTables" . }}
- { name: routes, mountPath: /etc/tidegate/routes, readOnly: true }
- { name: descriptors, mountPath: /etc/tidegate/descriptors, readOnly: true }
{{- end }}
{{- end }}

{{- define "tidegate.tableVolumes" -}}
{{- if include "tidegate.hasTables" . }}
{{- $tables := .Values.tables }}
- name: routes
  configMap:
    name: {{ default (printf "%s-routes" (include "tidegate.fullname" .)) $tables.existingRoutes.configMap }}
    items:
      - { key: {{ ternary $tables.existingRoutes.key "routes.yaml" (not (empty $tables.existingRoutes.configMap)) }}, path: routes.yaml }
- name: descriptors
  configMap:
    {{- if $tables.existingDescriptors.configMap }}
    name: {{ $tables.existingDescriptors.configMap }}
    {{- with $tables.existingDescriptors.items }}
    items: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- else }}
    name: {{ include "tidegate.fullname" . }}-descriptors
    items:
      {{- range $path, $_ := merge (dict) $tables.descriptors $tables.descriptorSets }}
      - { key: {{ include "tidegate.fileKey" $path }}, path: {{ $path }} }
      {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{/* Deployments of services, as a YAML list of {name, services}. Fails on a service in two groups, and on unknown ones. */}}
{{- define "tidegate.workers" -}}
{{- $grouped := dict }}
{{- range $group, $members := .Values.services.groups }}
{{- if and (has $group $.Values.services.names) (ne (list $group | toJson) (toJson $members)) }}
{{- fail (printf "the group `%s` has the name of a service: call it something else" $group) }}
{{- end }}
{{- range $members }}
{{- if hasKey $grouped . }}{{ fail (printf "`%s` is in the groups `%s` and `%s`" . (get $grouped .) $group) }}{{ end }}
{{- if and (ne . "*") (not (has . $.Values.services.names)) }}
{{- fail (printf "the group `%s` names `%s`, which is not in `services.names`" $group .) }}
{{- end }}
{{- $_ := set $grouped . $group }}
{{- end }}
{{- end }}
{{- $rest := list }}
{{- range .Values.services.names }}
{{- if not (hasKey $grouped .) }}{{ $rest = append $rest . }}{{ end }}
{{- end }}
{{- $workers := list }}
{{- range $group, $members := .Values.services.groups }}
{{- $services := without $members "*" }}
{{- if has "*" $members }}{{ $services = concat $services $rest }}{{ end }}
{{- $workers = append $workers (dict "name" $group "services" $services) }}
{{- end }}
{{- if not (hasKey $grouped "*") }}
{{- range $rest }}{{ $workers = append $workers (dict "name" . "services" (list .)) }}{{ end }}
{{- end }}
{{- toYaml $workers }}
{{- end }}
