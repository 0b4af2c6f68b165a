"""C sources as the gates see them: comments and strings blanked out, functions with their length and complexity."""

import pathlib
import re
from dataclasses import dataclass

# One alternative per construct whose contents are not code. A raw newline ends an unterminated string, so that it does not
# hide the rest of the file.
_NOT_CODE = re.compile(r"""/\*.*?(?:\*/|\Z) | //(?:\\\n|[^\n])* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'""",
                       re.DOTALL | re.VERBOSE)
_TOKEN = re.compile(r"[A-Za-z_]\w*|&&|\|\||[^\s\w]|\d[\w.]*")
_DIRECTIVE = re.compile(r"\s*#\s*(\w*)")
_BRANCHES = {"if", "for", "while", "case", "&&", "||", "?"}


@dataclass
class Function:
    name: str
    line: int  # where its declaration begins
    lines: int
    complexity: int


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


def code_only(text):
    """The text with comments removed and strings emptied; line numbers are kept."""

    def blank(match):
        found = match.group()
        quote = found[0] if found[0] in "\"'" else ""
        return quote + re.sub(r"[^\n]", " ", found[1:-1] if quote else found) + quote

    return _NOT_CODE.sub(blank, text)


def _logical_lines(code):
    """(line number, text), with lines that end in a backslash joined to the next."""
    lines = code.split("\n")
    at = 0
    while at < len(lines):
        first, text = at, lines[at]
        while text.endswith("\\") and at + 1 < len(lines):
            at += 1
            text = text[:-1] + " " + lines[at]
        yield first + 1, text
        at += 1


class _Scanner:
    """Walks over the tokens. An #else restores the state at its #if, because both branches may open a brace."""

    def __init__(self):
        self.depth = 0
        self.head = []  # tokens since the last declaration ended, as (token, line)
        self.open = None  # the function being read: name, line, complexity
        self.saved = []
        self.functions = []

    def directive(self, word):
        if word in ("if", "ifdef", "ifndef"):
            self.saved.append((self.depth, list(self.head), self.open and list(self.open)))
        elif word in ("else", "elif") and self.saved:
            depth, head, was_open = self.saved[-1]
            complexity = self.open[2] if self.open else 0
            self.depth, self.head, self.open = depth, list(head), was_open and list(was_open)
            if self.open:
                self.open[2] = max(complexity, self.open[2])
        elif word == "endif" and self.saved:
            self.saved.pop()

    def token(self, token, line):
        if token == "{":
            if self.depth == 0:
                self._maybe_open()
            self.depth += 1
        elif token == "}":
            self.depth = max(0, self.depth - 1)
            if self.depth == 0 and self.open:
                name, first, complexity = self.open
                self.functions.append(Function(name, first, line - first + 1, complexity))
                self.open, self.head = None, []
        elif self.depth == 0 and token == ";":
            self.head = []
        elif self.depth == 0:
            self.head.append((token, line))
        elif self.open and token in _BRANCHES:
            self.open[2] += 1

    def _maybe_open(self):
        tokens = [token for token, _ in self.head]
        if "=" in tokens or "(" not in tokens:
            return
        if tokens[-1] != ")" and tokens[0] in ("struct", "union", "enum", "typedef"):
            return
        name = next((tokens[i - 1] for i in range(1, len(tokens))
                     if tokens[i] == "(" and re.match(r"[A-Za-z_]", tokens[i - 1]) and tokens[i - 1] != "__attribute__"),
                    None)
        if name:
            self.open = [name, self.head[0][1], 1]


def functions(text):
    scanner = _Scanner()
    for number, line in _logical_lines(code_only(text)):
        directive = _DIRECTIVE.match(line)
        if directive:
            scanner.directive(directive.group(1))
            continue
        for token in _TOKEN.findall(line):
            scanner.token(token, number)
    return scanner.functions


def includes(text):
    """(line number, "<" or '"', path) of each include outside comments."""
    code = code_only(text).split("\n")
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match and re.match(r"\s*#\s*include", code[number - 1]):
            found.append((number, match.group(1), match.group(2)))
    return found


def files(root, *folders, endings=(".c", ".h")):
    root = pathlib.Path(root)
    return sorted(path for folder in folders for path in (root / folder).rglob("*")
                  if path.suffix in endings and "node_modules" not in path.parts)


def report(gate, problems, checked):
    """Prints the problems and returns the exit status; a gate that checked nothing fails."""
    for problem in problems:
        print(problem)
    if not checked:
        print(f"{gate}: nothing to check was found")
        return 1
    print(f"{gate}: {len(problems)} problems in {checked} files")
    return 1 if problems else 0
