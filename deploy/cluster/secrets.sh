#!/bin/sh
# The Secrets that install.sh creates: passwords and OpenSearch's certificate. Each is created once and kept; none ever
# appears on a command line. Read with `.`, after common.sh.
# shellcheck disable=SC2154 # what common.sh sets

random_text() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# NAMESPACE NAME USER
make_password() {
  if exists -n "$1" secret "$2"; then return; fi
  if $dry_run; then
    say "+ create the Secret $2 in $1 with a password for $3"
    return
  fi
  apply <<END || die "$E_FAILED" "The Secret $2 in $1 could not be created."
apiVersion: v1
kind: Secret
metadata:
  name: $2
  namespace: $1
  labels:
    app.kubernetes.io/managed-by: skald-install
stringData:
  username: $3
  password: Sk-$(random_text)
  cookie: $(random_text | cut -c1-32)
END
}

# NAMESPACE NAME HOST: a Secret with a certificate for the host and its CA's certificate, in cert-manager's format. The CA's
# key is discarded at once, so it cannot sign another certificate.
make_certificate() {
  if exists -n "$1" secret "$2"; then return; fi
  if $dry_run; then
    say "+ create the Secret $2 in $1 with a certificate for $3"
    return
  fi
  cat >"$scratch/openssl.cnf" <<END
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
subjectAltName = DNS:$3, DNS:$3.$1, DNS:$3.$1.svc, DNS:$3.$1.svc.cluster.local
END
  openssl_here req -x509 -newkey rsa:2048 -nodes -keyout "$scratch/ca.key" -out "$scratch/ca.crt" -days 3650 \
    -config "$scratch/openssl.cnf" -extensions authority -subj "/CN=authority of $3"
  openssl_here req -new -newkey rsa:2048 -nodes -keyout "$scratch/made.key" -out "$scratch/tls.csr" \
    -config "$scratch/openssl.cnf" -subj "/CN=$3"
  openssl_here x509 -req -in "$scratch/tls.csr" -CA "$scratch/ca.crt" -CAkey "$scratch/ca.key" -days 3650 \
    -set_serial "0x$(random_text | cut -c1-16)" -extfile "$scratch/openssl.cnf" -extensions server -out "$scratch/tls.crt"
  # The only key format that OpenSearch reads.
  openssl_here pkcs8 -topk8 -nocrypt -in "$scratch/made.key" -out "$scratch/tls.key"
  apply <<END || die "$E_FAILED" "The Secret $2 in $1 could not be created."
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata:
  name: $2
  namespace: $1
  labels:
    app.kubernetes.io/managed-by: skald-install
data:
  ca.crt: $(openssl base64 -A -in "$scratch/ca.crt")
  tls.crt: $(openssl base64 -A -in "$scratch/tls.crt")
  tls.key: $(openssl base64 -A -in "$scratch/tls.key")
END
}

openssl_here() {
  quietly openssl "$@" || die "$E_FAILED" "openssl could not create OpenSearch's certificate; see the error above."
}
