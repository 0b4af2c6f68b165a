"""What the system tests share: a PostgreSQL cluster, server processes, an HTTP client, and what is asked of answers."""
