#!/bin/sh
# Removes what install.sh made, and nothing else: sh ./delete.sh [OPTION…]
# It can be run again when it was stopped. What others use, an operator with databases of somebody else for one, stays.
set -eu
cd "$(dirname "$0")"
. deploy/cluster/checks.sh

usage() {
  cat <<'END'
sh ./delete.sh [OPTION…] removes what install.sh made in the cluster of kubectl's current context.

  --namespace NAME   where the shop is (skald)
  --yes              do not ask before data goes
  --timeout SECONDS  how long to wait for each part (600)
  --dry-run          print everything it would do, but change nothing
  --help             this text

It ends with 0, or 1 something failed, 2 wrong option, 3 a tool is missing, 4 a version does not fit, 5 the cluster
cannot be reached, 6 a permission is missing, 8 not confirmed.
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
  *) die $E_USAGE "delete.sh does not know $1. sh ./delete.sh --help lists what it knows." ;;
  esac
  shift
done

# By what the shop's objects, and those that the operators make for it, are known in its namespace, where others may be.
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

# Sets shop, to be removed; others, the namespaces of other shops; doomed, the components to be removed, last one first.
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
      say "$c_title stays, with its definitions: others use it ($users)."
      continue
    fi
    doomed="$name $doomed"
  done
}

# The namespaces whose objects are all the shop's or a component's. Where the shop's namespace was there before it, others
# may have theirs in it.
own_namespaces() {
  recorded "$namespace" namespace
  if [ "$found" = made ]; then printf ' %s ' "$namespace"; fi
  for own in $components; do
    component "$own"
    if is_ours "$c_namespace" "$own"; then printf ' %s ' "$c_namespace"; fi
  done
}

# Custom resources of component c_* that live elsewhere and were not made by install.sh or for the shop: kind/name in
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
    say "There is nothing here that install.sh made${others:+ for the namespace $namespace}."
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
  if [ ! -t 0 ]; then die $E_DECLINED "Nobody is there to ask. To remove it all the same: sh ./delete.sh --yes"; fi
  printf 'Type the name of the namespace, %s, to go on: ' "$namespace"
  read -r reply || reply=''
  [ "$reply" = "$namespace" ] || die $E_DECLINED "Nothing was removed."
}

uninstall() {
  if exists -n "$2" secret -l "owner=helm,name=$1"; then
    quietly helm_here uninstall "$1" --namespace "$2" --timeout "${timeout}s" ||
      die $E_FAILED "Helm could not remove $1."
  fi
}

# The shop's own objects of some definitions. A definition that is not there has no objects.
resources_gone() {
  for definition in $2; do gone -n "$1" "$definition" -l "$of_shop" || return 1; done
}

# Topics first, as long as their operator is there to let them go: all of the shop's Kafka, which goes next. What has
# volumes follows before its operator goes.
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

# The record goes last: with the namespace where install.sh made that, else after everything that carries its mark.
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
  say "The namespace $1 was there before and stays."
}

make_scratch
check
choose
announce
confirm
if $shop; then remove_shop; fi
for name in $doomed; do remove_component "$name"; done
if $dry_run; then
  step "That was a dry run: nothing was removed"
else
  step "Removed"
fi
