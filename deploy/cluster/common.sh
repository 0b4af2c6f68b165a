#!/bin/sh
# Shared by install.sh and delete.sh: output, access to the cluster, the record stored in it, waiting, and failure reports.
# Read with `.`; it only defines variables and functions.

# Exit statuses, the same in both scripts.
# shellcheck disable=SC2034 # E_… are used by the scripts that read this file
E_FAILED=1 E_USAGE=2 E_TOOL=3 E_VERSION=4 E_CLUSTER=5 E_PERMISSION=6 E_UNFIT=7 E_DECLINED=8

# The label of every object created here, and the name of the record in each namespace.
mark=app.kubernetes.io/managed-by=skald-install
record=skald-install
poll_seconds=2
report_seconds=10

# Set by the scripts' options and checks.
script=${0##*/} context='' dry_run=false timeout=600

say() {
  printf '%s\n' "$*"
}

step() {
  printf '\n== %s\n' "$*"
}

# STATUS SENTENCE…: prints the sentences, one per line, and exits.
die() {
  die_status=$1
  shift
  printf '%s\n' "$@" >&2
  exit "$die_status"
}

# An option's value, given as --namespace shop or --namespace=shop.
needs_value() {
  if [ $# -lt 2 ] || [ -z "$2" ]; then die $E_USAGE "$1 needs a value. See sh ./$script --help"; fi
}

# --- Names that become parts of objects are checked before anything is installed.
# Lower-case letters, digits and inner dashes, at most 63 characters.
is_label() {
  case $1 in
  *[!a-z0-9-]* | -* | *- | '') return 1 ;;
  esac
  [ ${#1} -le 63 ]
}

# Labels separated by dots.
is_domain() {
  domain_rest=$1.
  while [ -n "$domain_rest" ]; do
    is_label "${domain_rest%%.*}" || return 1
    domain_rest=${domain_rest#*.}
  done
}

check_namespace() {
  is_label "$1" ||
    die $E_USAGE "'$1' is not a valid namespace: use lower-case letters, digits and inner dashes, at most 63 characters."
  case $1 in
  default | kube-*) die $E_USAGE "The shop needs its own namespace, not $1. For example: --namespace skald" ;;
  esac
  for name in $components; do
    component "$name"
    [ "$1" != "$c_namespace" ] ||
      die $E_USAGE "The shop needs its own namespace, not that of $c_title, $1. For example: --namespace skald"
  done
}

# The longest name derived from it is opensearch.HOST, and a DNS name has at most 253 characters.
check_host() {
  if ! is_domain "$1" || [ ${#1} -gt 242 ]; then
    die $E_USAGE "'$1' is not a valid host name: use lower-case letters, digits and inner dashes between dots, at most 63" \
      "per label and 242 in all."
  fi
  case $1 in
  *[a-z]*) ;;
  *) die $E_USAGE "'$1' is an address; the shop needs a host name, such as arch.homework." ;;
  esac
}

# The same rule as in the chart's schema: [HOST[:PORT]/]PATH with a tag, a digest or both.
check_image_name() {
  image_word='[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*'
  image_host='(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)(:[0-9]+)?/'
  image_tag=':[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}'
  image_digest='@sha256:[0-9a-f]{64}'
  case $1 in
  *:latest) die $E_USAGE "The image needs an immutable tag, not latest: $1" ;;
  *[[:space:]]*) ;;
  *)
    if printf '%s\n' "$1" | grep -Eqx "($image_host)?$image_word(/$image_word)*($image_tag($image_digest)?|$image_digest)"; then
      return
    fi
    ;;
  esac
  die $E_USAGE "'$1' is not a valid image: use a lower-case name with a tag or a digest, such as" \
    "cr.example/skald:1.0 or cr.example/skald@sha256:…"
}

check_timeout() {
  case $1 in
  *[!0-9]* | '' | ?????????*) die $E_USAGE "--timeout must be a number of seconds, not '$1'." ;;
  esac
}

# Always the cluster that was current at the start, even if the current context changes meanwhile.
kube() {
  kubectl --context "$context" --request-timeout=60s "$@"
}

helm_here() {
  helm --kube-context "$context" "$@"
}

quoted() {
  for word in "$@"; do
    case $word in
    *[!A-Za-z0-9_./:=,@%+-]* | '') printf " '%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")" ;;
    *) printf ' %s' "$word" ;;
    esac
  done
}

would() {
  case $1 in
  kube) shift && set -- kubectl --context "$context" "$@" ;;
  helm_here) shift && set -- helm --kube-context "$context" "$@" ;;
  esac
  printf '+%s\n' "$(quoted "$@")"
}

# Every change to the cluster goes through change, quietly or apply, which only print it for --dry-run.
change() {
  if $dry_run; then
    would "$@"
  else
    "$@"
  fi
}

# A change whose output matters only when it fails.
quietly() {
  if $dry_run; then
    would "$@"
    return
  fi
  if ! "$@" >"$scratch/output" 2>&1; then
    cat "$scratch/output" >&2
    return 1
  fi
}

# Applies the manifest on standard input.
apply() {
  if $dry_run; then
    would kube apply -f -
    sed 's/^/    /'
    return
  fi
  cat >"$scratch/manifest"
  quietly kube apply --server-side --force-conflicts --field-manager=skald-install -f "$scratch/manifest"
}

make_scratch() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap 'say "Interrupted. Rerun to continue from here." >&2; exit 130' INT TERM HUP
}

# Sets found to the cluster's response. A failed query is not an empty response: decisions about what to remove, or who owns
# something, must not be based on it.
ask() {
  found=$(kube get "$@") || die $E_FAILED "The cluster did not respond; see the error above. Rerun later."
}

exists() {
  ask "$@" --ignore-not-found -o name
  [ -n "$found" ]
}

# RESOURCE or DEFINITION, with --namespace or without. Used for waiting: a failed query does not mean that it is gone.
gone() {
  left=$(kube get "$@" --ignore-not-found -o name) && [ -z "$left" ]
}

# --- The components beside the shop. Sets c_*: the namespace, the releases (release=chart), the groups of its custom
# resources, and one definition that shows whether it is installed.
components='gateway cnpg strimzi monitoring logging'
component() {
  c_name=$1 c_groups='' c_definition=''
  case $1 in
  gateway)
    c_title='Envoy Gateway' c_namespace=envoy-gateway-system c_releases=eg=gateway
    c_groups='gateway.networking.k8s.io gateway.networking.x-k8s.io gateway.envoyproxy.io'
    ;;
  cnpg)
    c_title=CloudNativePG c_namespace=cnpg-system c_releases=cnpg=cnpg
    c_groups=postgresql.cnpg.io c_definition=clusters.postgresql.cnpg.io
    ;;
  strimzi)
    c_title=Strimzi c_namespace=strimzi-system c_releases=strimzi=strimzi
    c_groups='kafka.strimzi.io core.strimzi.io' c_definition=kafkas.kafka.strimzi.io
    ;;
  monitoring)
    c_title='Prometheus and Grafana' c_namespace=skald-monitoring c_releases=monitoring=monitoring
    c_groups=monitoring.coreos.com c_definition=prometheuses.monitoring.coreos.com
    ;;
  logging)
    c_title='OpenSearch and Fluent Bit' c_namespace=skald-logging
    c_releases='opensearch=opensearch dashboards=dashboards fluent-bit=fluentbit'
    ;;
  esac
}

# --- The record: a ConfigMap in the namespace of each component, and of each shop, written before anything else of it
# and removed after everything else. So an interrupted run can be resumed, and what existed before is left alone.
recorded() {
  ask -n "$1" configmap $record --ignore-not-found -o "go-template={{with .data}}{{.$2}}{{end}}"
}

is_ours() {
  recorded "$1" component
  [ "$found" = "$2" ]
}

# NAMESPACE COMPONENT GROUPS: the groups whose definitions this run installs. A namespace is created with the mark, so that
# it is recognized as ours even if the run ends before the record is written.
write_record() {
  if is_ours "$1" "$2"; then return; fi
  made=found
  if exists namespaces --field-selector "metadata.name=$1,status.phase=Terminating"; then
    await "the namespace $1, which is being removed, is gone" "$1" gone namespace "$1"
  fi
  if ! exists namespace "$1"; then
    apply <<END || die $E_FAILED "The namespace $1 could not be created."
apiVersion: v1
kind: Namespace
metadata:
  name: "$1"
  labels:
    app.kubernetes.io/managed-by: skald-install
END
    made=made
  elif exists namespaces --field-selector "metadata.name=$1" -l "$mark"; then
    made=made
  fi
  apply <<END || die $E_FAILED "The record in the namespace $1 could not be written."
apiVersion: v1
kind: ConfigMap
metadata:
  name: $record
  namespace: "$1"
  labels:
    app.kubernetes.io/managed-by: skald-install
    skald-install/component: $2
data:
  component: "$2"
  namespace: "$made"
  groups: "$3"
END
}

# Sets found to the namespaces that hold a shop.
shop_namespaces() {
  ask configmap -A -l "$mark,skald-install/component=shop" \
    -o 'go-template={{range .items}}{{.metadata.namespace}} {{end}}'
}

# Sets found to the names of the definitions in the groups given.
definitions() {
  of_groups=''
  for group in "$@"; do
    ask customresourcedefinitions \
      -o "go-template={{range .items}}{{if eq .spec.group \"$group\"}}{{.metadata.name}} {{end}}{{end}}"
    of_groups="$of_groups$found"
  done
  found=$of_groups
}

# --- Waiting. A condition that cannot be checked does not hold yet, and is checked again.
now() {
  date +%s
}

# WHAT NAMESPACE CONDITION…: waits until the condition holds; reports progress, and the likely cause of a timeout.
await() {
  what=$1 where=$2
  shift 2
  if $dry_run; then
    say "+ wait, at most $timeout s, until $what"
    return
  fi
  began=$(now) reported_at=$(now)
  until "$@"; do
    if [ $(($(now) - began)) -ge "$timeout" ]; then
      say "Timed out after $timeout s waiting until $what." >&2
      explain "$where" >&2
      exit $E_FAILED
    fi
    if [ $(($(now) - reported_at)) -ge $report_seconds ]; then
      say "   waiting until $what: $(unready "$where") ($(($(now) - began)) of $timeout s)"
      reported_at=$(now)
    fi
    sleep $poll_seconds
  done
}

# A line for each controller that is not ready: name, ready pods, wanted pods.
unready_workloads() {
  listed=$(kube -n "$1" get deployments,statefulsets,daemonsets -o 'go-template={{range .items -}}
{{.metadata.name}} {{.metadata.generation}} {{or .status.observedGeneration 0}} {{if eq .kind "DaemonSet" -}}
{{or .status.desiredNumberScheduled 0}} {{or .status.numberReady 0}} {{or .status.updatedNumberScheduled 0}}
{{else -}}
{{or .spec.replicas 0}} {{or .status.readyReplicas 0}} {{or .status.updatedReplicas 0}}
{{end}}{{end}}') || return 1
  echo "$listed" | awk '$3 < $2 || $5 < $4 || $6 < $4 { print $1, $5, "of", $4 }'
}

# Custom resources whose condition TYPE is not True: NAMESPACE KIND TYPE.
unready_resources() {
  listed=$(kube -n "$1" get "$2" -o "go-template={{range .items}}{{.metadata.name}} {{range .status.conditions -}}
{{if eq .type \"$3\"}}{{.status}}{{end}}{{end}}
{{end}}") || return 1
  echo "$listed" | awk 'NF && $2 != "True" { print $1 }'
}

unready() {
  unready_workloads "$1" |
    awk '{ line = line (NR > 1 ? ", " : "") $0 } END { print line ? line " ready" : "nearly there" }'
}

# There must be at least one: a namespace without controllers has not been populated yet.
workloads_ready() {
  [ -n "$(kube -n "$1" get deployments,statefulsets,daemonsets -o name)" ] &&
    missing=$(unready_workloads "$1") && [ -z "$missing" ]
}

# --- Failing
# A line for each pod that is not ready: name|phase|why its containers wait or terminated|why it is not scheduled
broken_pods() {
  # shellcheck disable=SC2016 # $ready is the template's
  kube -n "$1" get pods -o 'go-template={{range .items}}{{$ready := false}}{{range .status.conditions -}}
{{if and (eq .type "Ready") (eq .status "True")}}{{$ready = true}}{{end}}{{end -}}
{{if not (or $ready (eq .status.phase "Succeeded")) -}}
{{.metadata.name}}|{{.status.phase}}|{{range .status.initContainerStatuses}}{{template "why" .}}{{end -}}
{{range .status.containerStatuses}}{{template "why" .}}{{end}}|{{range .status.conditions -}}
{{if and (eq .type "PodScheduled") (eq .status "False")}}{{.message}}{{end}}{{end}}
{{end}}{{end}}{{define "why"}}{{with .state.waiting}}{{.reason}} {{end}}{{with .state.terminated}}{{.reason}} {{end -}}
{{with .lastState.terminated}}{{.reason}} {{end}}{{end}}'
}

cause() {
  case $1 in
  *ErrImage* | *ImagePullBackOff* | *InvalidImageName*)
    echo "its image cannot be pulled. Check its name, the nodes' access to the registry, and their network." ;;
  *OOMKilled*) echo "it was killed because it exceeded its memory limit." ;;
  *CreateContainerConfigError*) echo "a Secret or ConfigMap that it needs does not exist." ;;
  *CrashLoopBackOff* | *'|Error '* | *'|Failed|'*) echo "its program exits; see its last log lines." ;;
  *'Insufficient memory'*)
    echo "no node has enough free memory. On Minikube: minikube start --memory=6g, or leave components out with" \
      "--without-monitoring and --without-logging." ;;
  *'Insufficient cpu'*) echo "no node has enough free CPU. On Minikube: minikube start --cpus=4" ;;
  *PersistentVolumeClaim*) echo "its volume does not exist. Does the cluster's default storage class provision volumes?" ;;
  *'|Pending|'*) echo "it has not been scheduled, or its image is still being pulled." ;;
  *) echo "it runs but its readiness probe fails." ;;
  esac
}

# The likely cause of a failure in a namespace, with the last lines of the first pod concerned.
explain() {
  broken_pods "$1" >"$scratch/broken"
  first=$(sed -n '1s/|.*//p' "$scratch/broken")
  if [ -z "$first" ]; then
    say "All pods of the namespace $1 are healthy. Latest warnings:"
    kube -n "$1" get events --field-selector type=Warning --sort-by=.lastTimestamp \
      -o 'go-template={{range .items}}   {{.involvedObject.kind}} {{.involvedObject.name}}: {{.message}}
{{end}}' | tail -n 5
    return
  fi
  while IFS= read -r line; do
    say "Pod ${line%%|*} in $1: likely cause: $(cause "$line")"
    case ${line##*|} in ?*) say "   ${line##*|}" ;; esac
  done <"$scratch/broken"
  say "The last log lines of $first:"
  { kube -n "$1" logs "$first" --all-containers --prefix --tail=10 2>/dev/null ||
    kube -n "$1" logs "$first" --all-containers --previous --tail=10 2>/dev/null ||
    say "(no log)"; } | sed 's/^/   /'
}
