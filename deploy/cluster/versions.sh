#!/bin/sh
# The pinned versions that install.sh installs: the only place to change them. Plain assignments, read with `.`.
# Kafka's and Debezium's versions are in the chart's values, because the shop's release installs them.
# shellcheck disable=SC2034 # read by install.sh and delete.sh

# The oldest supported versions. Strimzi needs Kubernetes 1.30; Envoy Gateway is tested upstream from 1.33 on.
oldest_kubernetes=1.30
oldest_kubernetes_for_gateway=1.33
oldest_kubectl=1.30
oldest_helm=3.14
newest_helm_major=4
oldest_minikube=1.36

gateway_chart=oci://docker.io/envoyproxy/gateway-helm
gateway_version=v1.9.0
cnpg_chart=oci://ghcr.io/cloudnative-pg/charts/cloudnative-pg
cnpg_version=0.29.0
strimzi_chart=oci://quay.io/strimzi-helm/strimzi-kafka-operator
strimzi_version=1.2.0
monitoring_chart=oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack
monitoring_version=88.5.3
opensearch_chart=https://github.com/opensearch-project/helm-charts/releases/download/opensearch-3.6.0/opensearch-3.6.0.tgz
opensearch_version=3.6.0
dashboards_chart=https://github.com/opensearch-project/helm-charts/releases/download/opensearch-dashboards-3.6.0/opensearch-dashboards-3.6.0.tgz
dashboards_version=3.6.0
fluentbit_chart=oci://ghcr.io/fluent/helm-charts/fluent-bit
fluentbit_version=0.58.1
