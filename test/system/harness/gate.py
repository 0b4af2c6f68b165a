"""A gate in front of a participant: it forwards requests, or refuses selected ones."""

import contextlib
import http.server
import json
import socketserver
import threading

from ports import free_port

from .client import Client

REFUSAL = json.dumps({"type": "about:blank", "title": "Conflict", "status": 409, "detail": "out of order"}).encode()


class Gate:
    """before: the participant's port."""

    def __init__(self, before):
        self.before = Client(lambda path: ("127.0.0.1", before))
        self.endings, self.status = (), 409
        self.refused = 0  # requests
        self.port = free_port()
        self.server = Listener(("127.0.0.1", self.port), self)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def refusing(self, *endings, status=409):
        """Refuses requests whose paths have this suffix."""
        self.endings, self.status = endings, status
        try:
            yield
        finally:
            self.endings = ()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, address, gate):
        self.gate = gate
        super().__init__(address, Passage)


class Passage(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        gate = self.server.gate
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith(gate.endings):
            gate.refused += 1
            self.answer(gate.status, "application/problem+json", REFUSAL)
            return
        timeout = self.headers.get("X-Request-Timeout-Ms")
        found = gate.before.put(self.path, body, **({"X_Request_Timeout_Ms": timeout} if timeout else {}))
        self.answer(found.status, found.headers["content-type"], found.body)

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
