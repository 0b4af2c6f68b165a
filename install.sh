#!/bin/sh
# Installs the shop and its dependencies into the cluster of kubectl's current context: sh ./install.sh [OPTION…]
# Safe to rerun at any time: it upgrades what exists, adds what is missing, and resumes an interrupted run.
# `sh ./delete.sh` removes what it created. See docs/deploy.md.
set -eu
cd "$(dirname "$0")"
. deploy/cluster/checks.sh
. deploy/cluster/secrets.sh

usage() {
  cat <<'END'
sh ./install.sh [OPTION…] installs the shop into the cluster of kubectl's current context.

  --profile minikube|cloud    sizes and replicas; default: minikube on a Minikube node, cloud elsewhere
  --events debezium|relay|wal how Billing's events reach Notification: Debezium over Kafka (the default), the shop's
                              own relay over Kafka, or directly from the write-ahead log, without Kafka
  --image NAME                the shop's image, such as cr.yandex/ID/skald:1.0 or NAME@sha256:…; default on Minikube:
                              built in the cluster from this folder
  --namespace NAME            the shop's namespace (skald)
  --without-monitoring        no Prometheus, no Grafana
  --without-logging           no OpenSearch, no Fluent Bit
  --gateway-class NAME        the GatewayClass to use if the cluster has several
  --host NAME                 the shop's host name (arch.homework)
  --charts FOLDER             read the third-party charts from FOLDER (NAME-VERSION.tgz) instead of the internet
  --timeout SECONDS           how long to wait for each component (600)
  --dry-run                   check everything and print what would be done, without changing anything
  --help                      this text

Exit status: 0 success, 1 something failed, 2 invalid option, 3 a tool is missing, 4 unsupported version, 5 cluster
unreachable, 6 a permission is missing, 7 unsuitable cluster.
END
}

profile='' events=debezium image='' namespace=skald monitoring=true logging=true gateway_class='' host=arch.homework
charts=''
while [ $# -gt 0 ]; do
  case $1 in
  --*=*)
    value=${1#*=} name=${1%%=*}
    shift
    set -- "$name" "$value" "$@"
    ;;
  esac
  case $1 in
  --profile | --events | --image | --namespace | --gateway-class | --host | --charts | --timeout) needs_value "$@" ;;
  esac
  case $1 in
  --profile) profile=$2 && shift ;;
  --events) events=$2 && shift ;;
  --image) image=$2 && shift ;;
  --namespace) namespace=$2 && shift ;;
  --gateway-class) gateway_class=$2 && shift ;;
  --host) host=$2 && shift ;;
  --charts) charts=$2 && shift ;;
  --timeout) timeout=$2 && shift ;;
  --without-monitoring) monitoring=false ;;
  --without-logging) logging=false ;;
  --dry-run) dry_run=true ;;
  --help | -h) usage && exit ;;
  *) die $E_USAGE "Unknown option $1. See sh ./install.sh --help" ;;
  esac
  shift
done

check_options() {
  case $profile in
  '' | minikube | cloud) ;;
  *) die $E_USAGE "--profile must be minikube or cloud, not '$profile'." ;;
  esac
  case $events in
  debezium | relay | wal) ;;
  *) die $E_USAGE "--events must be debezium, relay or wal, not '$events'." ;;
  esac
  check_timeout "$timeout"
  check_host "$host"
  [ -z "$image" ] || check_image_name "$image"
  [ -z "$gateway_class" ] || is_domain "$gateway_class" || die $E_USAGE "'$gateway_class' is not a valid GatewayClass."
  check_namespace "$namespace"
  if [ -n "$charts" ] && [ ! -d "$charts" ]; then die $E_USAGE "--charts: there is no folder $charts."; fi
}

# --- Checks, before anything is changed
choose_profile() {
  if [ -n "$profile" ]; then return; fi
  profile=cloud
  # shellcheck disable=SC2016 # the variables are the template's
  ask nodes -o 'go-template={{range .items}}{{range $key, $value := .metadata.labels}}{{$key}} {{end}}{{end}}'
  case $found in
  *minikube.k8s.io/name*) profile=minikube ;;
  esac
}

# Without --image, Minikube builds it; it must build in the same cluster that kubectl uses.
check_image() {
  if [ -n "$image" ]; then return; fi
  if [ "$profile" = cloud ]; then
    die $E_USAGE "Outside Minikube the shop needs an image that the nodes can pull: build deploy/image/Dockerfile," \
      "push it to a registry and pass its name with --image. docs/deploy.md has the commands."
  fi
  check_tools minikube
  check_minikube_version
  minikube_profile=$(minikube profile 2>/dev/null || :)
  if [ "$minikube_profile" != "$context" ]; then
    die $E_CLUSTER "kubectl's context is $context, but Minikube's profile is ${minikube_profile:-none}: the image" \
      "would be built in a different cluster than the shop's. Select the same one (kubectl config use-context NAME," \
      "minikube profile NAME), or pass an image with --image."
  fi
}

wanted_memory() {
  total=1100
  if [ "$events" != wal ]; then total=$((total + 1100)); fi
  if [ "$events" = debezium ]; then total=$((total + 400)); fi
  if $monitoring; then total=$((total + 700)); fi
  if $logging; then total=$((total + 1200)); fi
  echo "$total"
}

# The class for the shop's gateway; empty: there is none and Envoy Gateway has to be installed.
choose_gateway() {
  component gateway
  if is_ours "$c_namespace" gateway; then
    gateway_class=${gateway_class:-skald}
    return
  fi
  if ! exists customresourcedefinition gatewayclasses.gateway.networking.k8s.io; then
    [ -z "$gateway_class" ] || die $E_UNFIT "The cluster has no GatewayClass $gateway_class: it has no Gateway API."
    return
  fi
  c_title='Gateway API'
  check_served gateway.networking.k8s.io/v1
  classes=$(kube get gatewayclasses -o 'go-template={{range .items}}{{.metadata.name}} {{end}}')
  if [ -n "$gateway_class" ]; then
    case " $classes" in
    *" $gateway_class "*) return ;;
    esac
    die $E_UNFIT "The cluster has no GatewayClass $gateway_class. It has: ${classes:-none}"
  fi
  # shellcheck disable=SC2086 # one word a class
  set -- $classes
  [ $# -le 1 ] || die $E_USAGE "The cluster has several GatewayClasses. Choose one with --gateway-class: $classes"
  gateway_class=${1:-}
}

# Sets brought: the components to install or upgrade.
choose_components() {
  brought=''
  choose_gateway
  for name in $components; do
    component "$name"
    case $name in
    gateway) if [ -n "$gateway_class" ] && ! is_ours "$c_namespace" gateway; then continue; fi ;;
    strimzi) if [ "$events" = wal ]; then continue; fi ;;
    monitoring) $monitoring || continue ;;
    logging) $logging || continue ;;
    esac
    if [ -n "$c_definition" ] && ! is_ours "$c_namespace" "$name" &&
      exists customresourcedefinition "$c_definition"; then
      check_served "${c_definition#*.}/v1"
      say "$c_title is already installed and will not be changed."
      continue
    fi
    brought="$brought $name"
  done
  if brings gateway; then check_gateway_version; fi
}

check_gateway_version() {
  gateway_class=skald
  at_least "$server_version" "$oldest_kubernetes_for_gateway" ||
    die $E_VERSION "Envoy Gateway needs Kubernetes $oldest_kubernetes_for_gateway, this is ${server_version#v}." \
      "Upgrade the cluster, or install another Gateway API implementation first; it will be used."
}

check() {
  step "Checking the tools and the cluster"
  check_options
  check_tools kubectl helm awk sed od tr cksum mktemp
  check_tool_versions
  check_reach
  check_permissions create "$namespace"
  choose_profile
  check_image
  check_storage
  check_room "$(wanted_memory)"
  choose_components
  if brings logging; then check_tools openssl; fi
  say "Cluster $context, Kubernetes ${server_version#v}, profile $profile, namespace $namespace, events by $events."
}

# --- The image
# Its tag is a checksum of its sources, so an unchanged folder is not rebuilt and a changed one is deployed.
source_sum() {
  find src meson.build meson_options.txt tools deploy/image -type f ! -name '*.pyc' -exec cksum {} + | LC_ALL=C sort |
    cksum | awk '{ printf "%08x", $1 }'
}

build_image() {
  if [ -n "$image" ]; then return; fi
  image=skald:$(source_sum)
  step "The image $image"
  if minikube image ls 2>/dev/null | grep -q "/$image\$"; then
    say "Already in the cluster."
    return
  fi
  say "Building it in Minikube from this folder; the first time takes some minutes."
  quietly minikube image build -t "$image" -f deploy/image/Dockerfile . ||
    die $E_FAILED "The image could not be built; see the error above."
  $dry_run || minikube image ls | grep -q "/$image\$" ||
    die $E_FAILED "The image was built, but Minikube does not list it: minikube image ls"
}

# --- Third-party charts
# PREFIX: a chart's location and version, as arguments of helm.
chart_arguments() {
  eval "chart=\$$1_chart version=\$$1_version"
  if [ -n "$charts" ]; then
    chart_name=${chart##*/}
    chart=$charts/${chart_name%-"$version".tgz}-$version.tgz
    [ -f "$chart" ] || die $E_FAILED "The folder $charts does not contain ${chart##*/}."
  fi
  case $chart in
  *.tgz) set -- "$chart" ;;
  *) set -- "$chart" --version "$version" ;;
  esac
  chart_is=$*
}

# Helm does not upgrade custom resource definitions, so those of the given groups are applied here.
apply_definitions() {
  # shellcheck disable=SC2086 # words of helm's command line
  if $dry_run; then
    would helm show crds $chart_is
    say "+ kubectl apply of the definitions among them in: $1"
    return
  fi
  # shellcheck disable=SC2086
  if ! helm show crds $chart_is >"$scratch/crds" 2>"$scratch/output"; then
    cat "$scratch/output" >&2
    chart_failed
  fi
  # The document that a line belongs to is known at its end, by its group.
  awk -v groups=" $1 " '
    function flush() { if (group && index(groups, " " group " ")) printf "---\n%s", text; text = group = "" }
    /^---/ { flush(); next }
    /^  group:/ { group = $2; gsub(/"/, "", group) }
    { text = text $0 "\n" }
    END { flush() }' "$scratch/crds" >"$scratch/definitions"
  if [ -s "$scratch/definitions" ]; then
    quietly kube apply --server-side --force-conflicts --field-manager=skald-install -f "$scratch/definitions"
    kube wait --for=condition=Established --timeout=60s -f "$scratch/definitions" >"$scratch/output"
  fi
}

# Helm's own error has been printed; this adds the likely cause.
chart_failed() {
  case $(cat "$scratch/output") in
  *'no such host'* | *'dial tcp'* | *timeout* | *'TLS handshake'*)
    die $E_FAILED "The chart $chart could not be downloaded. Is the network up? To install without internet," \
      "put the charts into a folder and pass it with --charts."
    ;;
  esac
  die $E_FAILED "Helm failed; see its error above. Fix the cause and rerun: it continues from here."
}

# A killed run, of delete.sh too, leaves a pending revision, and helm refuses to continue. Its record is deleted; the
# objects stay and are adopted by the next revision.
drop_pending() {
  if exists -n "$2" secrets \
    -l "owner=helm,name=$1,status in (pending-install,pending-upgrade,pending-rollback,uninstalling)"; then
    say "An earlier run was interrupted during $1; resuming."
    # shellcheck disable=SC2086 # one word a secret
    quietly kube -n "$2" delete $found
  fi
}

# RELEASE NAMESPACE ARGUMENT…
release() {
  release_name=$1 release_namespace=$2
  shift 2
  drop_pending "$release_name" "$release_namespace"
  # A Deployment scaled manually is reset to the chart's replicas. Helm 3 does that by default.
  if [ "$helm_major" -ge 4 ]; then set -- --force-conflicts "$@"; fi
  quietly helm_here upgrade --install "$release_name" --namespace "$release_namespace" --timeout "${timeout}s" "$@" || {
    explain "$release_namespace" >&2
    chart_failed
  }
}

# --- The components
values_of() {
  values="-f deploy/cluster/values/$1.yaml"
  if [ -f "deploy/cluster/values/$1-$profile.yaml" ]; then
    values="$values -f deploy/cluster/values/$1-$profile.yaml"
  fi
}

# The log files of all shops in this cluster, as paths on a node; helm needs commas escaped.
log_paths() {
  shop_namespaces
  # shellcheck disable=SC2086 # one word a namespace
  for shop in $(printf '%s\n' "$namespace" $found | sort -u); do
    printf '%s/var/log/containers/*_%s_*.log' "${comma:-}" "$shop"
    comma='\,'
  done
}

# The chart puts the files into its own ConfigMap, so it also removes them, and a changed file restarts the pods.
fluentbit_arguments() {
  paths=$(log_paths)
  extra="--set-string logPaths=$paths"
  for file in fluent-bit opensearch; do
    extra="$extra --set-file config.extraFiles.$file\\.yaml=deploy/chart/skald/files/logging/$file.yaml"
  done
}

# What a component needs before and after its releases.
before_releases() {
  case $1 in
  monitoring) make_password "$c_namespace" grafana-admin admin ;;
  logging)
    make_certificate "$c_namespace" opensearch-certificates opensearch-cluster-master
    make_password "$c_namespace" opensearch-admin admin
    make_password "$c_namespace" opensearch-dashboards kibanaserver
    make_password "$c_namespace" opensearch-fluent-bit fluent-bit
    ;;
  esac
}

after_releases() {
  case $1 in
  gateway)
    apply <"deploy/cluster/gateway-$profile.yaml"
    apply <deploy/cluster/gateway-class.yaml
    ;;
  esac
}

install_component() {
  component "$1"
  step "$c_title, in the namespace $c_namespace"
  groups=''
  if is_ours "$c_namespace" "$1"; then
    recorded "$c_namespace" groups
    groups=$found
  else
    for group in $c_groups; do
      definitions "$group"
      if [ -z "$found" ]; then groups="$groups $group"; fi
    done
  fi
  write_record "$c_namespace" "$1" "${groups# }"
  before_releases "$1"
  for pair in $c_releases; do
    prefix=${pair#*=}
    chart_arguments "$prefix"
    apply_definitions "$groups"
    values_of "$prefix"
    extra=''
    if [ "$prefix" = fluentbit ]; then fluentbit_arguments; fi
    # shellcheck disable=SC2086 # words of helm's command line, none with a space
    release "${pair%%=*}" "$c_namespace" $chart_is --skip-crds $values $extra
  done
  after_releases "$1"
}

wait_component() {
  component "$1"
  await "every pod of $c_title is ready" "$c_namespace" workloads_ready "$c_namespace"
}

# --- The shop
# Writes the values that depend on the options and the cluster; the rest comes from the chart and the profile. The pods of
# a component that somebody else installed are unknown, so the shop's network policies then allow every namespace.
shop_values() {
  monitored=$(enabled "$monitoring" monitoring servicemonitors.monitoring.coreos.com)
  logged=$(enabled "$logging" logging)
  cat <<END
image:
  name: "$image"
events: $events
route:
  hosts: ["$host"]
  httproute:
    gateway:
      className: "$gateway_class"
monitoring:
  enabled: $monitored
logging:
  enabled: $logged
END
  if brings gateway && brings monitoring && brings cnpg; then return; fi
  echo networkPolicy:
  brings gateway || printf '  gateways:\n    - namespaceSelector: {}\n    - ipBlock: {cidr: 0.0.0.0/0}\n'
  brings monitoring || printf '  monitoring:\n    - namespaceSelector: {}\n'
  brings cnpg || printf '  databaseOperator:\n    - namespaceSelector: {}\n'
}

brings() {
  case "$brought " in
  *" $1 "*) ;;
  *) return 1 ;;
  esac
}

# WANTED COMPONENT [DEFINITION]: true if it is wanted and either installed by this run or present by its definition.
enabled() {
  if $1 && { brings "$2" || { [ -n "${3:-}" ] && exists customresourcedefinition "$3"; }; }; then
    echo true
  else
    echo false
  fi
}

install_shop() {
  step "The shop, in the namespace $namespace"
  write_record "$namespace" shop ''
  shop_values >"$scratch/values.yaml"
  if $dry_run; then
    say "+ values.yaml:"
    sed 's/^/    /' "$scratch/values.yaml"
  fi
  release skald "$namespace" deploy/chart/skald -f "deploy/chart/skald/values-$profile.yaml" -f "$scratch/values.yaml"
}

# True if all custom resources of a kind have the condition, or the cluster does not have the kind.
resources_ready() {
  gone customresourcedefinition "$2" || { missing=$(unready_resources "$1" "$2" "$3") && [ -z "$missing" ]; }
}

wait_shop() {
  await "the databases are ready" "$namespace" resources_ready "$namespace" clusters.postgresql.cnpg.io Ready
  if [ "$events" != wal ]; then
    await "Kafka is ready" "$namespace" resources_ready "$namespace" kafkas.kafka.strimzi.io Ready
  fi
  await "every pod of the shop is ready" "$namespace" workloads_ready "$namespace"
  await "the gateway has an address" "$namespace" \
    resources_ready "$namespace" gateways.gateway.networking.k8s.io Programmed
}

# Routes to Grafana and OpenSearch Dashboards through the shop's gateway. NAME NAMESPACE SERVICE PORT
page_route() {
  apply <<END
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: $1-$namespace
  namespace: $2
  labels:
    app.kubernetes.io/managed-by: skald-install
    skald-install/shop: "$namespace"
spec:
  hostnames: ["$1.$host"]
  parentRefs:
    - name: skald
      namespace: "$namespace"
  rules:
    - backendRefs:
        - name: $3
          port: $4
END
}

route_pages() {
  if brings monitoring; then page_route grafana skald-monitoring monitoring-grafana 80; fi
  if brings logging; then page_route opensearch skald-logging dashboards-opensearch-dashboards 5601; fi
}

password_of() {
  say "  $1: user admin, password: kubectl -n $2 get secret $3 -o go-template='{{.data.password|base64decode}}'"
}

finish() {
  if $dry_run; then
    step "Dry run: nothing was changed"
    return
  fi
  address=$(kube -n "$namespace" get gateways.gateway.networking.k8s.io \
    -o 'go-template={{range .items}}{{range .status.addresses}}{{.value}} {{end}}{{end}}')
  address=${address%% *}
  names=$host
  step "The shop is installed"
  say "Addresses:"
  say "  http://$host/  the shop"
  if brings monitoring; then
    names="$names grafana.$host"
    say "  http://grafana.$host/  dashboards"
  fi
  if brings logging; then
    names="$names opensearch.$host"
    say "  http://opensearch.$host/  logs"
  fi
  say "Make the names resolve on this machine:"
  say "  echo '${address:-ADDRESS} $names' | sudo tee -a /etc/hosts"
  if [ "$profile" = minikube ]; then
    say "  (If this machine cannot reach Minikube's address, as with Docker on macOS or Windows: use 127.0.0.1 and the"
    say "  port-forward in docs/deploy.md.)"
  fi
  say "Passwords (in Secrets):"
  if brings monitoring; then password_of Grafana skald-monitoring grafana-admin; fi
  if brings logging; then password_of "OpenSearch Dashboards" skald-logging opensearch-admin; fi
  say "  databases: kubectl -n $namespace get secrets"
  say "Try it: newman run ./hw_transactions_postman_collection.json"
}

make_scratch
check
build_image
for name in $brought; do install_component "$name"; done
for name in $brought; do wait_component "$name"; done
install_shop
wait_shop
route_pages
finish
