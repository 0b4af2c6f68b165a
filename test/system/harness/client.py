"""A transparent HTTP client: each call is one connection and one request; responses keep their bytes."""

import decimal
import http.client
import json
import socket

TIMEOUT = 30


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body, parse_float=decimal.Decimal)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:600]!r}>"


def encode(body):
    """Encodes anything but text as JSON. A Decimal keeps its digits."""
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    numbers = []

    def number(value):
        numbers.append(str(value))
        return f"\0{len(numbers) - 1}\0"

    text = json.dumps(body, default=number)
    for i, digits in enumerate(numbers):
        text = text.replace(f'"\\u0000{i}\\u0000"', digits)
    return text.encode()


class Client:
    """locate(path) returns the (host, port) that serves a path."""

    def __init__(self, locate):
        self.locate = locate

    def request(self, method, path, body=None, key=None, timeout=TIMEOUT, **headers):
        """Header names are given with _ for -, key is the Idempotency-Key."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        body = encode(body)
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
        if key is not None:
            fields["Idempotency-Key"] = key
        connection = http.client.HTTPConnection(*self.locate(path), timeout=timeout)
        try:
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body, **options)

    def put(self, path, body=None, **options):
        return self.request("PUT", path, body, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)

    def connect(self, path="/health", timeout=TIMEOUT):
        """A raw connection, for bytes that no HTTP library would send."""
        return Connection(socket.create_connection(self.locate(path), timeout=timeout))


class Connection:
    """A socket whose responses are read one by one. Other attributes are the socket's."""

    def __init__(self, bare):
        self.bare = bare
        self.file = bare.makefile("rb")

    def __getattr__(self, name):
        return getattr(self.bare, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.bare.close()

    def makefile(self, *_):
        """For HTTPResponse, which closes its file and would lose the buffered beginning of the next response."""
        return Kept(self.file)


class Kept:
    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def close(self):
        self.file.flush()


def read_answer(connection):
    """The next response on a raw connection, or None if it was closed or reset."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return Answer(response.status, response.getheaders(), response.read())
    except (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead):
        return None
