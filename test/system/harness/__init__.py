"""What the system tests share: a PostgreSQL cluster, server processes, an HTTP client, and what is asked of answers."""

import pathlib
import sys

# For ports and java.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))
