"""Malformed and hostile HTTP: rejected with a 4xx or a closed connection, without effect."""

import gzip
import socket
import struct
import uuid

import pytest

from harness.check import ok, problem
from harness.client import encode, read_answer
from harness.goods import payment

HOST = b"Host: arch.homework\r\n"
BODY = encode(payment())


def head(method="POST", target="/payment/payment", *fields, version="HTTP/1.1"):
    lines = [f"{method} {target} {version}", "Host: arch.homework", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def length(n):
    return f"Content-Length: {n}"


def send(shop, data, timeout=10, shut=False):
    """The response on a new connection, or None if it was closed without one."""
    with shop.connect(timeout=timeout) as connection:
        try:
            connection.sendall(data)
            if shut:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # rejected before everything was sent: there may still be a response to read
        return read_answer(connection)


def refused(answer, *statuses):
    """Checks for a closed connection, with or without a 4xx, or a 4xx problem."""
    if answer is None:
        return
    assert 400 <= answer.status < 500, answer
    assert not statuses or answer.status in statuses, answer
    if answer.headers.get("connection") != "close":
        problem(answer, answer.status)


def assert_alive(shop):
    assert ok(shop.get("/health")) == {"status": "ok"}


@pytest.fixture(autouse=True)
def nothing_broke(shop, unchanged):
    yield
    assert_alive(shop)


CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS = {
    "length and chunked": head("POST", "/payment/payment", length(len(BODY)), CHUNKED) + b"%x\r\n%s\r\n0\r\n\r\n" % (
        len(BODY), BODY),
    "chunked and length": head("POST", "/payment/payment", CHUNKED, length(5)) + b"%x\r\n%s\r\n0\r\n\r\n" % (
        len(BODY), BODY),
    "two lengths": head("POST", "/payment/payment", length(len(BODY)), length(len(BODY) - 1)) + BODY,
    "two equal lengths": head("POST", "/payment/payment", length(len(BODY)), length(len(BODY))) + BODY,
    "lengths in a list": head("POST", "/payment/payment", length(f"{len(BODY)}, {len(BODY)}")) + BODY,
    "two encodings": head("POST", "/payment/payment", CHUNKED, CHUNKED) + b"0\r\n\r\n",
    "encodings in a list": head("POST", "/payment/payment", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "unknown encoding": head("POST", "/payment/payment", "Transfer-Encoding: gzip") + BODY,
    "identity": head("POST", "/payment/payment", "Transfer-Encoding: identity", length(len(BODY))) + BODY,
    "negative length": head("POST", "/payment/payment", length(-1)) + BODY,
    "length with a plus": head("POST", "/payment/payment", length(f"+{len(BODY)}")) + BODY,
    "hexadecimal length": head("POST", "/payment/payment", length(hex(len(BODY)))) + BODY,
    "fractional length": head("POST", "/payment/payment", length(f"{len(BODY)}.0")) + BODY,
    "empty length": head("POST", "/payment/payment", "Content-Length:") + BODY,
    "length of words": head("POST", "/payment/payment", length("many")) + BODY,
    "length that overflows": head("POST", "/payment/payment", length(2**64 + len(BODY))) + BODY,
    "space before the colon": head("POST", "/payment/payment", length(len(BODY)), "Content-Length : 3") + BODY,
    "chunked in disguise": head("POST", "/payment/payment", "Transfer-Encoding: \x0bchunked", length(len(BODY))) + BODY,
    "length of nothing and chunked": head("GET", "/health", length(0), CHUNKED) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_lengths(shop, data):
    """Two parsers could read different requests from the same bytes (request smuggling), so both are rejected."""
    with shop.connect() as connection:
        connection.sendall(data + head("GET", "/health"))
        answer = read_answer(connection)
        refused(answer)
        if answer is not None and answer.status != 413:
            assert answer.headers.get("connection") == "close" or read_answer(connection) is None, answer


@pytest.mark.parametrize("name", ["length and chunked", "two lengths", "two equal lengths"])
def test_ambiguous_lengths_are_explained(shop, name):
    answer = send(shop, AMBIGUOUS[name])
    if answer is not None:
        problem(answer, 400)


def test_chunked_bodies_are_read(shop):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b'{"a":', b"1}")) + b"0\r\n\r\n"
    problem(send(shop, head("POST", "/payment/payment", CHUNKED) + chunks), 422, "/orderId")


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n{}", b"5\r\n{}",
                                    b"2\r\n{}xx0\r\n\r\n", b"100000000\r\n" + b"x" * 100])
def test_bad_chunks(shop, chunks):
    refused(send(shop, head("POST", "/payment/payment", CHUNKED) + chunks, shut=True))


def test_endless_chunks(shop):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    refused(send(shop, head("POST", "/payment/payment", CHUNKED) + chunk * 40), 413, 400)


def test_body_that_is_said_to_be_huge(shop):
    for n in (1024 * 1024 + 1, 10**12, 2**63 - 1):
        refused(send(shop, head("POST", "/payment/payment", length(n))), 413, 400)


NO_REQUEST = {
    "nothing but a newline": b"\r\n\r\n\r\n\r\n",
    "no version": b"GET /health\r\n" + HOST + b"\r\n",
    "version of words": head("GET", "/health", version="HTTP/x.y"),
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "field without colon": head("GET", "/health", "nonsense"),
    "field that begins with a colon": head("GET", "/health", ": x"),
    "space in a field name": head("GET", "/health", "X Y: z"),
    "zero byte in a field": head("GET", "/health", "X: a\0b"),
    "zero byte in the target": head("GET", "/hea\0lth"),
    "control characters": head("GET", "/hea\x01\x02lth"),
    "method with control characters": b"G\x01T /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x04\0\0\xff\xff",
    "zeros": b"\0" * 4096, "noise": bytes(range(255, 0, -1)) * 16,
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head("POST", "/payment/payment", length(len(BODY))) + BODY,
}


@pytest.mark.parametrize("data", NO_REQUEST.values(), ids=NO_REQUEST)
def test_no_request_at_all(shop, data):
    refused(send(shop, data, shut=True))


@pytest.mark.parametrize("method", ["BREW", "G" * 5000, "get", "CONNECT", "TRACE", "OPTIONS", "PROPFIND", "!#$%&'*+-.^_`|~"])
def test_absurd_methods(shop, method):
    refused(send(shop, head(method, "/payment/payment", length(0)), shut=True))


@pytest.mark.parametrize("target", ["/" * 8000, "/" + "a" * 8000, "/a" * 4000, "/" + "a" * 60000, "/order/order?" + "a" * 60000,
                                    "/../../etc/passwd", "/order/../payment/payment/x", "/order//order", "/%2e%2e/", "/%",
                                    "/%zz", "/\xff\xfe", "/order/order/%00", "*", "?", "health", "http://", "//", "/;/", "/\\"])
def test_absurd_paths(shop, target):
    refused(send(shop, head("GET", target), shut=True))


def test_absolute_target(shop):
    """RFC 9112 §3.2.2: a server must accept the absolute form as well."""
    assert send(shop, head("GET", "http://arch.homework/health")).status == 200
    problem(send(shop, head("GET", "http://arch.homework/user/user/x")), 400)


def test_a_hundred_header_fields(shop):
    assert send(shop, head("GET", "/health", *[f"X-{i}: {i}" for i in range(99)])).status == 200


def test_a_compressed_body_is_not_read(shop):
    body = gzip.compress(BODY)
    problem(send(shop, head("POST", "/payment/payment", length(len(body)), "Content-Encoding: gzip") + body), 415)
    problem(send(shop, head("POST", "/payment/payment", length(2), "Content-Encoding: identity") + b"{}"), 422)


def test_an_unknown_expectation(shop):
    problem(send(shop, head("POST", "/payment/payment", length(2), "Expect: magic") + b"{}"), 417)


def test_a_client_that_waits_is_told_to_go_on(shop):
    """RFC 9110 §10.1.1: the body is not sent before the server says so."""
    with shop.connect() as connection:
        connection.sendall(head("POST", "/payment/payment", length(2), "Expect: 100-continue"))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        problem(read_answer(connection), 422)


@pytest.mark.parametrize("fields", [
    ["X-Long: " + "a" * 40000], ["X-Long: " + "a" * 400000], ["X-Long: " + "a" * 2000000], [f"X-{i}: {i}" for i in range(100)],
    [f"X-{i}: {i}" for i in range(5000)], ["X" * 40000 + ": a"], [f"X-{i}: {'a' * 2000}" for i in range(20)],
], ids=["40 kB", "400 kB", "2 MB", "101 fields", "5000 fields", "a name of 40 kB", "20 of 2 kB"])
def test_absurd_header_sizes(shop, fields):
    refused(send(shop, head("GET", "/health", *fields)), 431, 400)


def test_headers_over_the_limit_are_explained(shop):
    problem(send(shop, head("GET", "/health", *[f"X-{i}: {'a' * 2000}" for i in range(20)])), 431)


def test_request_over_http_1_0(shop):
    answer = send(shop, head("GET", "/health", version="HTTP/1.0"))
    assert answer.status == 200
    assert answer.headers.get("connection", "close") == "close"


def test_http_0_9_is_no_request(shop):
    refused(send(shop, b"GET /health\r\n\r\n", shut=True))


def test_pipelined_requests_are_answered_in_order(shop):
    with shop.connect() as connection:
        connection.sendall(head("GET", "/health") + head("GET", "/nothing") + head("GET", "/health"))
        assert [read_answer(connection).status for _ in range(3)] == [200, 404, 200]


def test_a_connection_lives_on_after_a_refusal(shop):
    """A problem response does not close the connection."""
    with shop.connect() as connection:
        for _ in range(3):
            connection.sendall(head("POST", "/payment/payment", length(2)) + b"{}")
            problem(read_answer(connection), 422)
        connection.sendall(head("GET", "/health"))
        assert read_answer(connection).status == 200


def test_expect_continue(shop):
    with shop.connect() as connection:
        connection.sendall(head("POST", "/payment/payment", length(2), "Expect: 100-continue"))
        connection.sendall(b"{}")
        answer = read_answer(connection)
        problem(answer, 422)


def test_body_of_a_get_is_not_looked_at(shop):
    with shop.connect() as connection:
        connection.sendall(head("GET", "/health", length(5)) + b"{{{{{" + head("GET", "/health"))
        assert [read_answer(connection).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("cut", [1, 20, 60, 130, len(BODY) - 1])
def test_client_that_vanishes_within_its_request(shop, cut):
    data = head("POST", "/payment/payment", length(len(BODY))) + BODY
    data = data[:-cut]
    with shop.connect() as connection:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end


def test_half_closed_client_gets_no_act(shop):
    refused(send(shop, head("POST", "/payment/payment", length(len(BODY))) + BODY[:-1], shut=True))


def test_many_clients_that_connect_and_say_nothing(shop):
    silent = [shop.connect() for _ in range(200)]
    try:
        assert_alive(shop)
    finally:
        for connection in silent:
            connection.close()


def test_metrics_do_not_grow_by_paths(shop):
    """Labels come from the route table, never from input."""
    strange = uuid.uuid4().hex
    shop.get(f"/{strange}/x")
    shop.get(f"/order/order/{uuid.UUID(strange)}")
    text = shop.get("/metrics").body.decode()
    assert "/order/order/{id}" in text
    assert strange not in text and str(uuid.UUID(strange)) not in text
