#!/bin/sh
# Removes what install.sh created, and nothing else: sh ./delete.sh [OPTION…]
# It can be rerun after an interruption. What others use, such as an operator with other databases, stays.
set -eu
cd "$(dirname "$0")"
. deploy/cluster/checks.sh

usage() {
  cat <<'END'
sh ./delete.sh [OPTION…] removes what install.sh created in the cluster of kubectl's current context.

  --namespace NAME   the shop's namespace (skald)
  --yes              do not ask for confirmation
  --timeout SECONDS  how long to wait for each component (600)
  --dry-run          print what would be done, without changing anything
  --help             this text

Exit status: 0 success, 1 something failed, 2 invalid option, 3 a tool is missing, 4 unsupported version, 5 cluster
unreachable, 6 a permission is missing, 8 not confirmed.
END
}

namespace=skald yes=false
while [ $# -gt 0 ]; do
  case $1 in
  --namespace=* | --timeout=*)
    value=${1#*=} name=${1%%=*}
    shift
    set -- "$name" "$value" "$@"
    ;;
  esac
  case $1 in
  --namespace | --timeout) needs_value "$@" ;;
  esac
  case $1 in
  --namespace) namespace=$2 && shift ;;
  --timeout) timeout=$2 && shift ;;
  --yes | -y) yes=true ;;
  --dry-run) dry_run=true ;;
  --help | -h) usage && exit ;;
  *) die $E_USAGE "Unknown option $1. See sh ./delete.sh --help" ;;
  esac
  shift
done

# Labels that identify the objects of the shop, and those that operators create for it, in a namespace shared with others.
of_shop=app.kubernetes.io/instance=skald
of_kafka=strimzi.io/cluster=skald
of_databases='cnpg.io/cluster in (skald-db'
routes=httproutes.gateway.networking.k8s.io
for name in order payment warehouse delivery user billing notification; do of_databases="$of_databases,skald-$name-db"; done
of_databases="$of_databases)"

check() {
  check_namespace "$namespace"
  check_timeout "$timeout"
  check_tools kubectl helm awk sed mktemp
  check_tool_versions
  check_reach
  check_permissions delete "$namespace"
}

# Sets shop: whether to remove it; others: the namespaces of other shops; doomed: the components to remove, in reverse
# order.
choose() {
  shop=false others='' doomed='' ours=$(own_namespaces)
  shop_namespaces
  for other in $found; do
    if [ "$other" = "$namespace" ]; then shop=true; else others="$others $other"; fi
  done
  for name in $components; do
    component "$name"
    if ! is_ours "$c_namespace" "$name"; then continue; fi
    if [ -n "$others" ]; then
      say "$c_title stays: the shop in$others uses it."
      continue
    fi
    users=$(foreign_resources)
    if [ -n "$users" ]; then
      say "$c_title stays, with its definitions: it is in use by others ($users)."
      continue
    fi
    doomed="$name $doomed"
  done
}

# The namespaces that contain only objects of the shop or a component. A shop's namespace that existed before may contain
# objects of others.
own_namespaces() {
  recorded "$namespace" namespace
  if [ "$found" = made ]; then printf ' %s ' "$namespace"; fi
  for own in $components; do
    component "$own"
    if is_ours "$c_namespace" "$own"; then printf ' %s ' "$c_namespace"; fi
  done
}

# Custom resources of component c_* in other namespaces that were not created by install.sh or for the shop: kind/name in
# namespace, at most three.
foreign_resources() {
  # shellcheck disable=SC2086 # one word a group
  definitions $c_groups
  : >"$scratch/resources"
  for definition in $found; do
    # shellcheck disable=SC2016 # the variables are the template's
    ask "$definition" --all-namespaces -l "app.kubernetes.io/managed-by!=skald-install" \
      -o 'go-template={{range .items -}}
{{.kind}}/{{.metadata.name}} {{or .metadata.namespace "-"}}{{with .metadata.labels -}}
{{range $key, $value := .}} {{$key}}={{$value}}{{end}}{{end}}
{{end}}'
    printf '%s\n' "$found" >>"$scratch/resources"
  done
  awk -v ours="$ours" -v namespace="$namespace" -v shop=" $of_shop " -v kafka=" $of_kafka " '
    !NF || index(ours, " " $2 " ") || ($2 == namespace && (index($0 " ", shop) || index($0 " ", kafka))) { next }
    count++ < 3 { printf "%s%s in %s", comma, $1, $2; comma = ", " }' "$scratch/resources"
}

announce() {
  if ! $shop && [ -z "$doomed" ]; then
    say "There is nothing to remove: install.sh created nothing here${others:+ for the namespace $namespace}."
    exit 0
  fi
  say "This will be removed from the cluster $context:"
  if $shop; then
    say "  the shop in the namespace $namespace, WITH ALL ITS DATA: databases and Kafka's topics"
  fi
  for name in $doomed; do
    component "$name"
    say "  $c_title in the namespace $c_namespace$(case $name in
    monitoring) echo ", with all recorded metrics" ;;
    logging) echo ", with all logs" ;;
    esac)"
  done
}

confirm() {
  if $dry_run || $yes; then return; fi
  [ -t 0 ] || die $E_DECLINED "Standard input is not a terminal, so confirmation is impossible." \
    "To remove it anyway: sh ./delete.sh --yes"
  printf 'Type the name of the namespace (%s) to continue: ' "$namespace"
  read -r reply || reply=''
  [ "$reply" = "$namespace" ] || die $E_DECLINED "Nothing was removed."
}

uninstall() {
  if exists -n "$2" secret -l "owner=helm,name=$1"; then
    quietly helm_here uninstall "$1" --namespace "$2" --timeout "${timeout}s" ||
      die $E_FAILED "Helm could not remove $1."
  fi
}

# True once the shop has no objects of these definitions.
resources_gone() {
  for definition in $2; do gone -n "$1" "$definition" -l "$of_shop" || return 1; done
}

# First the topics of the shop's Kafka, while their operator can still finalize them; then the shop itself. Whatever has
# volumes is removed before its operator.
remove_shop() {
  step "The shop in the namespace $namespace"
  for definition in kafkatopics.kafka.strimzi.io kafkaconnectors.kafka.strimzi.io kafkausers.kafka.strimzi.io; do
    if exists customresourcedefinition "$definition"; then
      quietly kube -n "$namespace" delete "$definition" -l "$of_kafka" --wait=false
      await "the ${definition%%.*} are gone" "$namespace" gone -n "$namespace" "$definition" -l "$of_kafka"
    fi
  done
  if exists customresourcedefinition "$routes"; then
    for own in skald-monitoring skald-logging; do
      quietly kube -n "$own" delete "$routes" -l "skald-install/shop=$namespace"
    done
  fi
  uninstall skald "$namespace"
  definitions postgresql.cnpg.io kafka.strimzi.io
  await "databases and Kafka are gone" "$namespace" resources_gone "$namespace" "$found"
  for label in "$of_shop" "$of_kafka" "$of_databases"; do
    quietly kube -n "$namespace" delete persistentvolumeclaims,secrets,configmaps -l "$label" --wait=false
  done
  remove_namespace "$namespace"
}

remove_component() {
  component "$1"
  step "$c_title, in the namespace $c_namespace"
  case $1 in
  gateway) quietly kube delete --ignore-not-found -f deploy/cluster/gateway-class.yaml ;;
  monitoring) quietly kube -n kube-system delete --ignore-not-found service skald-monitoring-kubelet ;;
  esac
  for pair in $c_releases; do
    uninstall "${pair%%=*}" "$c_namespace"
    quietly kube -n "$c_namespace" delete persistentvolumeclaims -l "app.kubernetes.io/instance=${pair%%=*}" --wait=false
  done
  recorded "$c_namespace" groups
  # shellcheck disable=SC2086 # one word a group, a definition
  definitions $found
  if [ -n "$found" ]; then
    doomed_definitions=$found
    # shellcheck disable=SC2086
    quietly kube delete customresourcedefinitions $found --wait=false
    # shellcheck disable=SC2086
    await "its definitions are gone" "$c_namespace" gone customresourcedefinitions $doomed_definitions
  fi
  remove_namespace "$c_namespace"
}

# The record is removed last: with the namespace if install.sh created it, otherwise after everything that carries the mark.
remove_namespace() {
  recorded "$1" namespace
  if [ "$found" = made ]; then
    quietly kube delete namespace "$1" --wait=false
    await "the namespace $1 is gone" "$1" gone namespace "$1"
    return
  fi
  for definition in $routes envoyproxies.gateway.envoyproxy.io; do
    if exists customresourcedefinition "$definition"; then quietly kube -n "$1" delete "$definition" -l "$mark"; fi
  done
  quietly kube -n "$1" delete secrets -l "$mark"
  quietly kube -n "$1" delete configmaps -l "$mark"
  say "The namespace $1 existed before and stays."
}

make_scratch
check
choose
announce
confirm
if $shop; then remove_shop; fi
for name in $doomed; do remove_component "$name"; done
if $dry_run; then
  step "Dry run: nothing was removed"
else
  step "Removed"
fi
