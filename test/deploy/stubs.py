"""A machine with scripted tools: a PATH with the system's plain tools and stubs of kubectl, helm and minikube. The
stubs record their calls and respond according to the first matching pattern. So these tests show what the scripts print
and whether they change anything, not that an installation works."""

import dataclasses
import fnmatch
import pathlib
import shlex
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAIN = ["awk", "cat", "cksum", "cut", "date", "dirname", "find", "grep", "head", "mktemp", "od", "openssl", "rm", "sed", "sh",
         "sleep", "sort", "tail", "tr", "uname"]
TALKERS = ["kubectl", "helm", "minikube"]
# Words that only read; any other verb is a change.
READERS = {"kubectl": ["get", "version", "config", "auth", "api-versions", "logs", "wait"],
           "helm": ["version", "show", "status", "list"], "minikube": ["profile", "version", "image ls"]}
VERSION = '{"major": "1", "minor": "36", "gitVersion": "v1.36.3"}'
# A Minikube with nothing in it, and an administrator.
EMPTY_MINIKUBE = [
    ("kubectl version --client", "Client Version: v1.36.1\nKustomize Version: v5.8.1"),
    ("kubectl config current-context", "minikube"),
    ("kubectl * get --raw /version", VERSION),
    ("kubectl * auth can-i *", "yes"),
    ("kubectl * get nodes *labels*", "kubernetes.io/hostname minikube.k8s.io/name "),
    ("kubectl * get nodes *allocatable*", "8000000Ki"),
    ("kubectl * get storageclasses *", "storageclass.kubernetes.io/is-default-class=true"),
    ("helm version *", "v4.3.1"),
    ("minikube version --short", "v1.38.1"),
    ("minikube profile", "minikube"),
]


@dataclasses.dataclass
class Run:
    status: int
    said: str
    calls: list

    def changes(self):
        return [call for call in self.calls if not reads(call)]


def reads(call):
    tool, *words = shlex.split(call)
    while words and words[0].startswith("-"):
        words = words[1 if "=" in words[0] else 2:]
    return any(" ".join(words).startswith(reader) for reader in READERS[tool])


def answer_script(tool, folder, answers):
    """A shell script that records the call and selects a response with `case`."""
    calls = shlex.quote(str(folder / "calls"))
    lines = ["#!/bin/sh", f'line="{tool} $*"', f'printf "%s\\n" {tool}"$(printf " %s" "$@" | tr "\\n" " ")" >>{calls}']
    for number, (pattern, text, status) in enumerate(answers):
        (folder / f"{tool}-{number}").write_text(text + "\n" if text else "", encoding="utf-8")
        glob = "".join(char if char in "*?" else "\\" + char for char in pattern)
        stream = "" if status == 0 else " >&2"
        answer = shlex.quote(str(folder / f"{tool}-{number}"))
        lines.append(f"case $line in {glob}) cat {answer}{stream}; exit {status} ;; esac")
    return "\n".join(lines) + "\nexit 0\n"


class Machine:
    def __init__(self, folder, shell):
        self.folder, self.shell = folder, shell
        self.answers = [(*answer, 0) for answer in EMPTY_MINIKUBE]
        self.absent = set()

    def answer(self, pattern, text="", status=0):
        """Takes precedence over earlier ones: the latest matching response is used."""
        self.answers.insert(0, (pattern, text, status))

    def lay_out(self):
        tools = self.folder / "bin"
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        for name in PLAIN:
            if name not in self.absent:
                (tools / name).symlink_to(shutil.which(name))
        for tool in TALKERS:
            if tool not in self.absent:
                path = tools / tool
                path.write_text(answer_script(tool, self.folder, [a for a in self.answers if a[0].startswith(tool)]),
                                encoding="utf-8")
                path.chmod(0o755)
        (self.folder / "calls").write_text("", encoding="utf-8")
        return tools

    def run(self, script, *options):
        tools = self.lay_out()
        done = subprocess.run([*self.shell, ROOT / script, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120, cwd=self.folder,
                              env={"PATH": str(tools), "HOME": str(self.folder)})
        calls = (self.folder / "calls").read_text(encoding="utf-8").splitlines()
        return Run(done.returncode, done.stdout, calls)


def shells():
    """Debian's /bin/sh is dash; small systems use busybox."""
    found = {"sh": ["/bin/sh"]}
    if shutil.which("busybox"):
        found["busybox"] = [shutil.which("busybox"), "sh"]
    return found


def matching(calls, pattern):
    return [call for call in calls if fnmatch.fnmatchcase(call, pattern)]
