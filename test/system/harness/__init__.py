"""Shared by the system tests: a PostgreSQL cluster, server processes, an HTTP client, and checks of responses."""

import pathlib
import sys

# For environment, ports and java.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))
import environment  # noqa: E402

environment.clean(keep=("proxy", "java"))  # what is fetched may come through a proxy
