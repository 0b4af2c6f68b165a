{{/* Shared helpers: names, labels and addresses. */}}

{{- define "skald.services" -}}
order payment warehouse delivery user billing notification
{{- end }}

{{/* The prefix of every object's name. A name that would be invalid for any of them is rejected here, before anything is
created. It is never truncated, because two releases could then collide. */}}
{{- define "skald.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name }}
{{- $source := ternary "fullnameOverride" "the release's name" (ne .Values.fullnameOverride "") }}
{{- $mend := ternary "choose another one" "choose another one, or set a prefix with --set fullnameOverride=NAME" (ne .Values.fullnameOverride "") }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "%s, %q, is not a valid prefix of Service names: only a-z, 0-9 and inner dashes, a letter first; %s" $source $name $mend) }}
{{- end }}
{{- $most := include "skald.longestName" . | trim | int }}
{{- if gt (len $name) $most }}
{{- fail (printf "%s, %q, has %d characters; with these values at most %d leave room for the suffixes of the objects' names; %s" $source $name (len $name) $most $mend) }}
{{- end }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" .Release.Namespace) }}
{{- fail (printf "%q is not a valid namespace: at most 63 of a-z, 0-9 and inner dashes" .Release.Namespace) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* The maximum length of that prefix: each limit minus the longest suffix. */}}
{{- define "skald.longestName" -}}
{{- $most := sub 63 (len "-notification") }}
{{- if .Values.logging.enabled }}
{{- $most = min $most (sub 63 (len "-logging-01234567")) }}
{{- end }}
{{- if ne .Values.databases.mode "external" }}
{{- /* CloudNativePG allows 50 characters. */}}
{{- $most = min $most (sub 50 (ternary (len "-notification-db") (len "-db") (eq .Values.databases.mode "separate"))) }}
{{- end }}
{{- if and (include "skald.usesKafka" .) (eq .Values.kafka.mode "strimzi") }}
{{- /* A broker's host name consists of Kafka's name, the pool's name, which repeats the prefix, and a number. */}}
{{- $most = min $most (div (sub 63 (len "--nodes-99")) 2) }}
{{- end }}
{{- $most }}
{{- end }}

{{/* Labels of an object: (dict "root" $ "component" "order"), with "more" a dict of others. */}}
{{- define "skald.labels" -}}
{{- $own := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/part-of" "skald" "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) }}
{{- merge (include "skald.selector" . | fromYaml) $own (.more | default dict) .root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "skald.selector" -}}
app.kubernetes.io/name: skald
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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
- name: {{ .name | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
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
serviceAccountName: {{ include "skald.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "skald.podSecurity" . | nindent 2 }}
{{- end }}

{{/* A container of the shop's image, without name. */}}
{{- define "skald.container" -}}
image: {{ include "skald.image" . | quote }}
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
- name: {{ $name | quote }}
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
    topologyKey: {{ . | quote }}
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
      app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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
          cnpg.io/cluster: {{ . | quote }}
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
          strimzi.io/cluster: {{ include "skald.name" . | quote }}
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
        cidr: {{ . | quote }}
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
