"""The names of the shop's services, from the one place that has them: the lists in src/services/services.h."""

import pathlib
import re

HEADER = pathlib.Path(__file__).resolve().parent.parent / "src/services/services.h"


def listed(macro, text):
    """The lower-case names in a list of the form #define MACRO(X) X(NAME, name) …, in its order."""
    body = re.search(rf"#define {macro}\(X\)((?:.*\\\n)*.*)", text).group(1)
    return tuple(re.findall(r"X\(\w+, (\w+)\)", body))


SERVICES = listed("SERVICES", HEADER.read_text(encoding="utf-8"))
