"""An OpenSearch with its security plugin, set up as install.sh does it: the Secrets are made by deploy/cluster/secrets.sh,
and settings, users and roles are those of deploy/cluster/values/opensearch.yaml. Not as in a cluster: one node on
127.0.0.1, on the class path of this project's other OpenSearch, and it reads its Secrets from files."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import java
import yaml
from ports import free_port

from .cluster import ROOT

VALUES = yaml.safe_load((ROOT / "deploy/cluster/values/opensearch.yaml").read_text())
INSTALL = (ROOT / "install.sh").read_text()
LOCAL = ROOT / "deploy/local/opensearch"
PLUGIN = "org.opensearch.security.OpenSearchSecurityPlugin"
HOST = "opensearch-cluster-master"
# Takes the manifests that are applied, and knows of nothing that is there already.
KUBECTL = """#!/bin/sh
case $* in *' apply '*) for last; do :; done; cat "$last" >>"$MANIFESTS"; echo --- >>"$MANIFESTS" ;; esac
"""
MAKE = """. deploy/cluster/common.sh
. deploy/cluster/secrets.sh
context=none c_namespace=skald-logging
make_scratch
{calls}
"""


def make_secrets(folder):
    """name → key → value, created by the same lines as in install.sh."""
    calls = [line for line in INSTALL.splitlines() if line.strip().startswith(("make_certificate ", "make_password "))]
    calls = [line.strip() for line in calls if " opensearch-" in line]
    assert len(calls) == 4, calls
    (folder / "bin").mkdir()
    (folder / "bin/kubectl").write_text(KUBECTL)
    (folder / "bin/kubectl").chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "MANIFESTS": str(folder / "manifests")}
    subprocess.run(["sh", "-eu", "-c", MAKE.format(calls="\n".join(calls))], cwd=ROOT, env=environment, check=True)
    found = {}
    for one in yaml.safe_load_all((folder / "manifests").read_text()):
        if one:
            assert one["metadata"]["namespace"] == "skald-logging"
            data = {name: base64.b64decode(text).decode() for name, text in one.get("data", {}).items()}
            found[one["metadata"]["name"]] = data | one.get("stringData", {})
    return found


class SecuredOpenSearch:
    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="skald-secured-"))
        self.secrets = make_secrets(self.folder)
        self.port = free_port()
        self.url = f"https://{HOST}:{self.port}"
        self.node = self.folder / "node"
        self.program = java.Program(self.node, "opensearch", "512m", LOCAL / "pom.xml")
        self.plugin = java.artifacts(ROOT / "test/system/opensearch/security/pom.xml")
        try:
            self.lay_out()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.program.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def lay_out(self):
        config = self.node / "config"
        shutil.copytree(self.plugin / "config", config / "opensearch-security")
        for name, text in VALUES["securityConfig"]["config"]["data"].items():
            (config / "opensearch-security" / name).write_text(text)
        [mount] = VALUES["secretMounts"]
        folder = config / pathlib.Path(mount["path"]).name
        folder.mkdir()
        for name, text in self.secrets[mount["secretName"]].items():
            (folder / name).write_text(text)
        self.ca_file = folder / "ca.crt"
        own = {"network.host": "127.0.0.1", "discovery.type": "single-node", "http.port": self.port,
               "transport.port": free_port(), "cluster.routing.allocation.disk.threshold_enabled": False}
        settings = yaml.safe_load(VALUES["config"]["opensearch.yml"]) | own
        (config / "opensearch.yml").write_text(yaml.safe_dump(settings))
        shutil.copy(LOCAL / "log4j2.properties", config)
        (self.node / "temporary").mkdir()
        (self.folder / ".curlrc").write_text(f'resolve = "{HOST}:{self.port}:127.0.0.1"\n')

    def start(self):
        variables = {}
        for one in VALUES["extraEnvs"]:
            source = one.get("valueFrom", {}).get("secretKeyRef")
            variables[one["name"]] = self.secrets[source["name"]][source["key"]] if source else one["value"]
        command = self.program.command(
            "-Djna.nosys=true", "-Djna.nounpack=true", f"-Djava.io.tmpdir={self.node / 'temporary'}",
            "groovy.ui.GroovyMain", LOCAL / "node.groovy", self.node, PLUGIN)
        at = command.index("-cp") + 1
        command[at] += f":{self.plugin}/*"
        with open(self.program.log, "w") as log:
            self.program.child = subprocess.Popen(command, cwd=self.node, env=os.environ | variables, stdout=log, stderr=log,
                                                  stdin=subprocess.DEVNULL, start_new_session=True)
        self.program.wait_until("answer to its administrator", lambda: self.ask("opensearch-admin", "") == 200)

    def environment(self, **variables):
        """An environment in which curl resolves the name on the node's certificate."""
        return os.environ | {"CURL_HOME": str(self.folder), "OPENSEARCH_URL": self.url} | variables

    def ask(self, secret, path, *options):
        """The status, 0 without a response, for the user of a Secret or for (name, password)."""
        user = secret if isinstance(secret, tuple) else (self.secrets[secret]["username"], self.secrets[secret]["password"])
        done = subprocess.run(
            ["curl", "-K", "-", "-s", "-m", "60", "-o", self.folder / "answer", "-w", "%{http_code}", "--cacert",
             self.ca_file, *options, f"{self.url}/{path}"],
            input=f'user = "{":".join(user)}"\n', env=self.environment(), capture_output=True, text=True)
        return int(done.stdout or 0)

    def answer(self):
        return json.loads((self.folder / "answer").read_text())
