{{/* Shared helpers: names, labels and addresses. */}}

{{- define "skald.services" -}}
order payment warehouse delivery user billing notification
{{- end }}

{{- define "skald.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object. Called with (dict "root" $ "component" "order"). */}}
{{- define "skald.labels" -}}
{{ include "skald.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: skald
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "skald.selector" -}}
app.kubernetes.io/name: skald
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "skald.image" -}}
{{- .Values.image.name | default (printf "skald:%s" .Chart.AppVersion) }}
{{- end }}

{{- define "skald.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "skald.name" .) }}
{{- end }}

{{/* A service's settings: the defaults overridden by its own entry, as YAML. */}}
{{- define "skald.workload" -}}
{{- $own := index .root.Values.services .service | default dict }}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own)) }}
{{- end }}

{{/* --- Databases */}}

{{/* The name of the CloudNativePG cluster of a service. */}}
{{- define "skald.cluster" -}}
{{- if eq .root.Values.databases.mode "separate" -}}
{{ include "skald.name" .root }}-{{ .service }}-db
{{- else -}}
{{ include "skald.name" .root }}-db
{{- end }}
{{- end }}

{{/* The Secret with a role's username and password; the roles are the services and cdc. */}}
{{- define "skald.roleSecret" -}}
{{- index .root.Values.databases.existingSecrets .role | default (printf "%s-db-%s" (include "skald.name" .root) .role) }}
{{- end }}

{{/* One variable from a Secret. */}}
{{- define "skald.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{/* The variables with the address of a process's own database: (dict "root" $ "service" "order"). */}}
{{- define "skald.ownDatabase" -}}
{{- $variable := printf "%s_DATABASE_URL" (upper .service) }}
{{- if eq .root.Values.databases.mode "external" }}
{{- $secret := .root.Values.databases.external.secret }}
{{ include "skald.fromSecret" (dict "name" "DATABASE_URL" "secret" $secret "key" "DATABASE_URL" "optional" true) }}
{{ include "skald.fromSecret" (dict "name" $variable "secret" $secret "key" $variable "optional" true) }}
{{- else }}
{{- include "skald.roleDatabase" (dict "root" .root "service" .service "role" .service "user" .service "variable" $variable) }}
{{- end }}
{{- end }}

{{/* The same for reading Billing's WAL. Its readers have a role that may only read and replicate. */}}
{{- define "skald.billingLog" -}}
{{- if eq .root.Values.databases.mode "external" }}
{{- $secret := .root.Values.databases.external.secret }}
{{- if not .ownDatabase }}
{{ include "skald.fromSecret" (dict "name" "DATABASE_URL" "secret" $secret "key" "DATABASE_URL" "optional" true) }}
{{- end }}
{{ include "skald.fromSecret" (dict "name" "BILLING_DATABASE_URL" "secret" $secret "key" "BILLING_DATABASE_URL" "optional" true) }}
{{- else }}
{{- include "skald.roleDatabase" (dict "root" .root "service" "billing" "role" "cdc" "user" "billing_cdc" "variable" "BILLING_DATABASE_URL") }}
{{- end }}
{{- end }}

{{/* Kubernetes substitutes the password, from another variable, into the address. */}}
{{- define "skald.roleDatabase" }}
{{- $password := printf "%s_PASSWORD" (upper .role) }}
{{ include "skald.fromSecret" (dict "name" $password "secret" (include "skald.roleSecret" .) "key" "password") }}
- name: {{ .variable }}
  value: postgresql://{{ .user }}:$({{ $password }})@{{ include "skald.cluster" . }}-rw:5432/{{ .service }}?sslmode=require
{{- end }}

{{/* --- Kafka */}}

{{- define "skald.usesKafka" -}}
{{- if ne .Values.events "wal" }}true{{ end }}
{{- end }}

{{- define "skald.brokers" -}}
{{- if eq .Values.kafka.mode "external" -}}
{{ .Values.kafka.external.brokers }}
{{- else -}}
{{ include "skald.name" . }}-kafka-bootstrap:9092
{{- end }}
{{- end }}

{{/* --- Pods */}}

{{- define "skald.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "skald.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The common part of every pod with the shop's image. */}}
{{- define "skald.pod" -}}
serviceAccountName: {{ include "skald.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "skald.podSecurity" . | nindent 2 }}
{{- end }}

{{/* A container of the shop's image, without name. */}}
{{- define "skald.container" -}}
image: {{ include "skald.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "skald.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* Migrates a service's database before the pod's process starts: (dict "root" $ "service" "order"). */}}
{{- define "skald.migration" -}}
- name: migrate
  {{- include "skald.container" .root | nindent 2 }}
  args: [migrate, {{ .service }}]
  env:
    {{- include "skald.ownDatabase" . | trim | nindent 4 }}
  resources:
    requests:
      cpu: 10m
      memory: 16Mi
    limits:
      memory: 64Mi
{{- end }}

{{/* The probes of a process that serves HTTP. It drains by itself on SIGTERM, so there is no preStop hook. */}}
{{- define "skald.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: http
  {{- toYaml .Values.pod.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: http
  {{- toYaml .Values.pod.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  {{- toYaml .Values.pod.readiness | nindent 2 }}
{{- end }}

{{- define "skald.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* How replicas of a component are spread: (dict "root" $ "component" "order" "over" (list …)). */}}
{{- define "skald.spread" -}}
{{- $args := . }}
{{- with .over }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "skald.selector" $args | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/* A duration such as 7d in milliseconds. */}}
{{- define "skald.milliseconds" -}}
{{- $unit := regexFind "[a-z]+$" . }}
{{- mul (trimSuffix $unit . | int64) (index (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) $unit) }}
{{- end }}

{{/* The termination grace period, which must cover DRAIN_DELAY, DRAIN_TIMEOUT, and the 9 s in which the process releases the
remaining work. (dict "root" $ "env" (dict …)) */}}
{{- define "skald.grace" -}}
{{- $config := mergeOverwrite (dict "DRAIN_DELAY" "0s" "DRAIN_TIMEOUT" "10s") (deepCopy .root.Values.config) (deepCopy .env) }}
{{- $most := add (include "skald.milliseconds" $config.DRAIN_DELAY) (include "skald.milliseconds" $config.DRAIN_TIMEOUT) 9000 }}
{{- $given := int64 .root.Values.pod.terminationGracePeriodSeconds }}
{{- if lt (mul $given 1000) $most }}
{{- fail (printf "pod.terminationGracePeriodSeconds is %d: DRAIN_DELAY, DRAIN_TIMEOUT and 9 s need %d ms" $given $most) }}
{{- end }}
{{- $given }}
{{- end }}

{{/* --- NetworkPolicies */}}

{{/* The release's pods with the given components, as a list with one peer. */}}
{{- define "skald.peers" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/name: skald
      app.kubernetes.io/instance: {{ .root.Release.Name }}
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: [{{ join ", " .components }}]
{{- end }}

{{/* An egress rule to the databases of services. */}}
{{- define "skald.toDatabase" -}}
{{- $root := .root }}
{{- if eq $root.Values.databases.mode "external" }}
{{- include "skald.toOutside" $root.Values.databases.external }}
{{- else -}}
- ports:
    - port: 5432
  to:
    {{- $clusters := list }}
    {{- range .services }}
    {{- $clusters = append $clusters (include "skald.cluster" (dict "root" $root "service" .)) }}
    {{- end }}
    {{- range uniq $clusters }}
    - podSelector:
        matchLabels:
          cnpg.io/cluster: {{ . }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "skald.toKafka" -}}
{{- if eq .Values.kafka.mode "external" }}
{{- include "skald.toOutside" .Values.kafka.external }}
{{- else -}}
- ports:
    - port: 9092
  to:
    - podSelector:
        matchLabels:
          strimzi.io/cluster: {{ include "skald.name" . }}
          strimzi.io/kind: Kafka
{{- end }}
{{- end }}

{{- define "skald.toOutside" -}}
- ports:
    {{- range .ports }}
    - port: {{ . }}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* The namespaces whose routes a listener of the Gateway accepts. */}}
{{- define "skald.routesFrom" -}}
namespaces:
  {{- if .Values.route.httproute.gateway.routesFrom }}
  from: Selector
  selector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values: {{ prepend .Values.route.httproute.gateway.routesFrom .Release.Namespace | toJson }}
  {{- else }}
  from: Same
  {{- end }}
{{- end }}
