#!/bin/sh
# Prerequisites on this machine and in the cluster: tools, versions, connection, permissions, memory. All problems of one
# kind are reported together, and each kind has its exit status. Read with `.`.

. deploy/cluster/versions.sh
. deploy/cluster/common.sh

problems=''

# Adds a sentence, which report_problems prints.
problem() {
  problems="$problems$*
"
}

report_problems() {
  [ -z "$problems" ] || die "$1" "${problems%?}"
}

# True when version $1 (v1.33.1-eks, 3.18) is at least $2 (1.33).
at_least() {
  printf '%s %s\n' "${1#v}" "$2" | awk '{
    split($1, have, /[^0-9]+/); split($2, need, ".")
    for (i = 1; i <= 3; i++) if (have[i] + 0 != need[i] + 0) exit have[i] + 0 < need[i] + 0
  }'
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# Checks the tools by name; a missing one is reported with its purpose.
check_tools() {
  for tool in "$@"; do
    if has "$tool"; then continue; fi
    case $tool in
    kubectl) problem "kubectl is missing: it accesses the cluster. https://kubernetes.io/docs/tasks/tools/" ;;
    helm) problem "helm is missing: it installs the charts. https://helm.sh/docs/intro/install/" ;;
    minikube)
      problem "minikube is missing: it builds the image in the cluster. https://minikube.sigs.k8s.io/docs/start/" \
        "(Not needed with --image.)"
      ;;
    openssl)
      problem "openssl is missing: it creates OpenSearch's certificate. (Not needed with --without-logging.)"
      ;;
    *) problem "$tool is missing: it is a standard POSIX tool." ;;
    esac
  done
  report_problems "$E_TOOL"
}

# NAME VERSION OLDEST
check_version() {
  if [ -z "$2" ]; then
    problem "$1 does not report its version; is $(command -v "$1") the right program?"
  elif ! at_least "$2" "$3"; then
    problem "$1 ${2#v} is too old: $3 or newer is required."
  fi
}

check_tool_versions() {
  check_version kubectl "$(kubectl version --client 2>/dev/null | sed -n 's/^Client Version: *//p')" "$oldest_kubectl"
  helm_version=$(helm version --template '{{.Version}}' 2>/dev/null || :)
  check_version helm "$helm_version" "$oldest_helm"
  helm_major=${helm_version#v}
  helm_major=${helm_major%%.*}
  case $helm_major in
  '' | *[!0-9]*) ;;
  *)
    if [ "$helm_major" -gt "$newest_helm_major" ]; then
      problem "helm ${helm_version#v} is not supported: use version 3 or $newest_helm_major."
    fi
    ;;
  esac
  report_problems "$E_VERSION"
}

check_minikube_version() {
  check_version minikube "$(minikube version --short 2>/dev/null)" "$oldest_minikube"
  report_problems "$E_VERSION"
}

# Sets context and server_version, or says why the cluster cannot be reached.
check_reach() {
  if ! context=$(kubectl config current-context 2>/dev/null) || [ -z "$context" ]; then
    die "$E_CLUSTER" "kubectl has no current context." \
      "Start Minikube (minikube start --cpus=4 --memory=6g), or get a cluster's credentials and select it with" \
      "kubectl config use-context NAME."
  fi
  if ! version_json=$(kubectl --context "$context" --request-timeout=15s get --raw /version 2>&1); then
    case $version_json in
    *Unauthorized* | *credentials* | *expired*)
      die "$E_CLUSTER" "The cluster of the context $context rejects the credentials; renew them. Its response:" \
        "$version_json"
      ;;
    *orbidden*) die "$E_PERMISSION" "The user of the context $context may not read the version: $version_json" ;;
    *)
      die "$E_CLUSTER" "The cluster of the context $context is unreachable. Is it running (minikube start), is the" \
        "network up, is it the right context (kubectl config get-contexts)? kubectl reported:" "$version_json"
      ;;
    esac
  fi
  server_version=$(printf '%s' "$version_json" | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p')
  if ! at_least "$server_version" "$oldest_kubernetes"; then
    die "$E_VERSION" "Kubernetes ${server_version#v} is too old: the cluster must have $oldest_kubernetes or newer."
  fi
}

# May the user do it? VERB RESOURCE [NAMESPACE]
check_permission() {
  if [ -n "${3:-}" ]; then set -- "$1" "$2" -n "$3"; else set -- "$1" "$2" --all-namespaces; fi
  case $(kube auth can-i "$@" 2>/dev/null || :) in
  yes*) ;;
  *)
    where=$(if [ "$3" = -n ]; then echo "in the namespace $4"; else echo "in the whole cluster"; fi)
    problem "The user of the context $context may not $1 $2 $where."
    ;;
  esac
}

check_permissions() {
  for kind in namespaces customresourcedefinitions.apiextensions.k8s.io clusterroles.rbac.authorization.k8s.io \
    clusterrolebindings.rbac.authorization.k8s.io; do
    check_permission "$1" "$kind"
  done
  for kind in secrets configmaps deployments.apps statefulsets.apps jobs.batch services; do
    check_permission "$1" "$kind" "$2"
  done
  [ -z "$problems" ] || problem "A cluster administrator must grant this (the role cluster-admin), or run the script."
  report_problems "$E_PERMISSION"
}

# The memory allocatable to pods on all nodes together, in Mi.
allocatable_memory() {
  kube get nodes -o 'go-template={{range .items}}{{.status.allocatable.memory}}
{{end}}' | awk '
    /Ki$/ { sum += $1 / 1024; next } /Mi$/ { sum += $1; next } /Gi$/ { sum += $1 * 1024; next }
    /m$/ { sum += $1 / 1000 / 1048576; next } { sum += $1 / 1048576 }
    END { printf "%d\n", sum }'
}

# WANTED in Mi
check_room() {
  has_memory=$(allocatable_memory)
  if [ "$has_memory" -lt "$1" ]; then
    die "$E_UNFIT" "The cluster's nodes have $has_memory MiB of memory for pods, but about $1 MiB are needed." \
      "On Minikube: minikube delete, then minikube start --memory=6g. Or leave parts out: --without-logging saves" \
      "1200 MiB, --without-monitoring 700, --events relay or wal the memory of Debezium, wal that of Kafka too."
  fi
}

check_storage() {
  # shellcheck disable=SC2016 # the variables are the template's
  if ! kube get storageclasses -o 'go-template={{range .items}}{{range $key, $value := .metadata.annotations}}{{$key}}={{$value}}
{{end}}{{end}}' | grep -q 'is-default-class=true'; then
    die "$E_UNFIT" "The cluster has no default storage class, so the databases cannot get volumes." \
      "On Minikube: minikube addons enable default-storageclass; elsewhere mark one as the default."
  fi
}

# VERSION: a component that somebody else installed must serve the API version that the shop uses.
check_served() {
  kube api-versions | grep -qx "$1" ||
    die "$E_UNFIT" "The cluster's own $c_title does not serve $1. Upgrade it; this script does not change it."
}
