#!/bin/sh
# Prepares OpenSearch for the logs: index template, retention policy, and in OpenSearch Dashboards saved searches and a
# dashboard. Run it before the first line is sent; safe to rerun. Needs curl. Environment:
#   OPENSEARCH_URL            such as https://opensearch:9200
#   DASHBOARDS_URL            such as http://dashboards:5601; without it nothing is installed in Dashboards
#   OPENSEARCH_USER, OPENSEARCH_PASSWORD
#   OPENSEARCH_CA_FILE        the CA certificates to trust; default: the system's
#   WAIT_SECONDS              how long to wait for either to respond, 120
set -eu
: "${OPENSEARCH_URL:?is missing, for example http://127.0.0.1:9200}"
cd "$(dirname "$0")"
line_end='
'
deadline=$(($(date +%s) + ${WAIT_SECONDS:-120}))

# The password is passed to curl on standard input, because arguments are visible to other users.
credentials() {
  if [ -n "${OPENSEARCH_USER:-}" ]; then
    printf 'user = "%s"\n' "$(printf %s "$OPENSEARCH_USER:${OPENSEARCH_PASSWORD:-}" | sed 's/[\\"]/\\&/g')"
  fi
}

# Sets status (000 without a response), body, and problem, which is curl's exit status.
request() {
  if [ -n "${OPENSEARCH_CA_FILE:-}" ]; then set -- --cacert "$OPENSEARCH_CA_FILE" "$@"; fi
  problem=0
  body=$(credentials | curl -K - -s -m 30 -w '\n%{http_code}' "$@") || problem=$?
  status=${body##*"$line_end"}
  body=${body%"$line_end"*}
}

fail() {
  printf '%s\n%s\n' "$1" "$body" >&2
  exit 1
}

wait_for() { # what, address
  while request "$2" && [ "$status" != 200 ]; do
    case $status in 401 | 403) fail "$1 refuses the user ${OPENSEARCH_USER:-(none)}: $status" ;; esac
    # An untrusted certificate will not become trusted by waiting.
    case $problem in
    60) fail "The certificate of $1 at $2 is for another name, or by no authority of ${OPENSEARCH_CA_FILE:-the system}" ;;
    77) fail "The certificates of authorities in ${OPENSEARCH_CA_FILE:-the system} cannot be read" ;;
    esac
    [ "$(date +%s)" -lt "$deadline" ] || fail "$1 does not answer at $2: $status"
    sleep 1
  done
}

put() { # what, address, @file or text
  request -X PUT -H 'Content-Type: application/json' --data-binary "$3" "$2"
  case $status in 200 | 201) echo "$1 is in place." ;; *) fail "$1 is refused: $status" ;; esac
}

# An existing policy can be replaced only by naming its current version.
put_policy() {
  address=$OPENSEARCH_URL/_plugins/_ism/policies/app-logs
  request "$address"
  case $status in
  200)
    number=$(echo "$body" | sed -n 's/.*"_seq_no" *: *\([0-9]*\).*/\1/p')
    term=$(echo "$body" | sed -n 's/.*"_primary_term" *: *\([0-9]*\).*/\1/p')
    address="$address?if_seq_no=$number&if_primary_term=$term"
    ;;
  404) ;;
  400)
    echo "This OpenSearch has no index state management: delete old logs manually." >&2
    return
    ;;
  *) fail "The retention policy cannot be read: $status" ;;
  esac
  put 'The retention policy' "$address" @retention-policy.json
}

# If OpenSearch was configured not to create log indices before this (as by install.sh), it may from now on.
permit_indices() {
  address=$OPENSEARCH_URL/_cluster/settings
  request "$address?include_defaults=true&filter_path=*.action.auto_create_index"
  case $status$body in
  200*'"-app-logs-*'*)
    put 'The permission to make indices' "$address" '{"persistent": {"action.auto_create_index": "true"}}'
    ;;
  200*) ;;
  *) fail "The settings cannot be read: $status" ;;
  esac
}

import_objects() {
  request -H 'osd-xsrf: true' -H 'securitytenant: global' -F 'file=@saved-objects.ndjson;type=application/ndjson' \
    "$DASHBOARDS_URL/api/saved_objects/_import?overwrite=true"
  case $status$body in 200*'"success":true'*) ;; *) fail "Dashboards refuses the saved objects: $status" ;; esac
  echo 'Searches and dashboard are in place.'
}

wait_for OpenSearch "$OPENSEARCH_URL/_cluster/health?wait_for_status=yellow&timeout=10s"
put 'The index template' "$OPENSEARCH_URL/_index_template/app-logs" @index-template.json
put_policy
permit_indices
if [ -n "${DASHBOARDS_URL:-}" ]; then
  wait_for 'OpenSearch Dashboards' "$DASHBOARDS_URL/api/status"
  import_objects
fi
