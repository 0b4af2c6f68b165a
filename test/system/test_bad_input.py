"""Invalid bodies, ids and parameters: a 4xx problem with the exact field, and no row changed."""

import copy
import uuid

import pytest

from harness.check import done, ok, problem
from harness.client import encode
from harness.goods import delivery, line, order, own_time, payment, person, reservation, saga

pytestmark = pytest.mark.usefixtures("unchanged")
MISSING = object()


class Raw:
    """JSON text that Python would not generate."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text if len(self.text) < 30 else f"{self.text[:20]}…{len(self.text)}"


# What can be sent: a good body, and where to. Changing something that is not there is as good a test as any: the body
# is looked at first, and {"status": false} would be a 200.
REQUESTS = {
    "order": (lambda: order(contents=[line(), line()]), "POST", "/order/order"),
    "changed order": (lambda: order(contents=[line(), line()]), "PUT", f"/order/order/{uuid.uuid4()}"),
    "saga": (lambda: saga([line(), line()], account=str(uuid.uuid4())), "POST", "/order/order/saga"),
    "payment": (payment, "POST", "/payment/payment"),
    "changed payment": (payment, "PUT", f"/payment/payment/{uuid.uuid4()}"),
    "reservations": (lambda: [reservation(amount=1), reservation(amount=1)], "POST", "/warehouse/warehouse"),
    "changed reservation": (lambda: reservation(amount=1), "PUT", f"/warehouse/warehouse/{uuid.uuid4()}"),
    "stock": (lambda: {"available": 1}, "PUT", "/warehouse/stock/never-stocked"),
    "delivery": (delivery, "POST", "/delivery/delivery"),
    "changed delivery": (delivery, "PUT", f"/delivery/delivery/{uuid.uuid4()}"),
    "slot": (lambda: {"capacity": 1}, "PUT", f"/delivery/slot/{own_time()}"),
    "user": (person, "POST", "/user/user"),
    "changed user": (person, "PUT", f"/user/user/{uuid.uuid4()}"),
    "account": (lambda: {"wallet": 1}, "POST", "/billing/billing"),
}

NOT_A_NUMBER = ["1", "", True, [], {}, Raw("1e400"), Raw("-1e400"), Raw("9" * 400)]
MONEY = [*NOT_A_NUMBER, -0.01, 0.001, 1.001, Raw("0.0000000001"), Raw("1e-3"), Raw("1e36"), Raw("-1e36"),
         Raw("1" + "0" * 36), Raw("90000000000000000.01")]
PRICE = [MISSING, None, *MONEY]
COST = [*PRICE, 0, Raw("0.00"), Raw("-0")]
COUNT = [*NOT_A_NUMBER, -1, 1.5, Raw("1e3"), Raw("9223372036854775808"), Raw("-9223372036854775809")]
AMOUNT = [MISSING, *COUNT, 0, 1000001]
CONTROL = ["a\nb", "a\r\nb", "tab\t", "\x07", "\x1b[31mred", "\x7f", "\u0085", "a\u009b31m"]
BLANK = [" ", "   ", "\u00a0", "\u3000 \u2003", "\u200b"]
TEXT = [MISSING, None, "", 5, True, [], {}, "\0", "a\0b", *CONTROL, *BLANK]
EMAIL = [*TEXT, "nobody", "x" * 400 + "@example.org", "@example.org", "a@", "@", "a@b@example.org", "a b@example.org",
         "a@exam ple.org", "a@example.org ", "a\u00a0b@example.org", "a@example.org\r\nBcc: b@example.org",
         "a\u0080@example.org", "<a@example.org>", "a@example.org,b", "a@example.org;b", "a,b@example.org"]
LONG = ["x" * 201, "ж" * 101, "x" * 100000]
ID = [5, True, [], {}, "", "abc", "00000000-0000-0000-0000-000000000000", "123e4567-e89b-12d3-a456-42661417400",
      "123e4567-e89b-12d3-a456-4266141740000", "123e4567-e89b-12d3-a456-42661417400g", "' OR 1=1 --"]
TIME = [MISSING, None, 5, 1893456000, True, [], {}, "", "tomorrow", "2094-05-26", "16:00:00", "2094-02-30T10:00:00",
        "2093-02-29T10:00:00", "2094-13-01T10:00:00", "2094-00-10T10:00:00", "2094-01-00T10:00:00",
        "2094-04-31T10:00:00", "2094-01-01T24:00:00", "2094-01-01T10:60:00", "2094-01-01T10:00:61", "2094-1-1T1:00:00",
        "2094-05-26T16:00:00Z", "2094-05-26T16:00:00+03:00", "0000-01-01T00:00:00", "-2094-01-01T00:00:00",
        "12094-01-01T00:00:00", "2094-05-26T16:00:00.", " 2094-05-26T16:00:00", "infinity"]
STATUS = [MISSING, None, "", "PAID", "success", 5, True]
LIST = [MISSING, None, [], {}, "x", 5, Raw("[" + ",".join(["null"] * 501) + "]")]
ELEMENT = [None, 5, "x", [], True]

FIELDS = [
    (["order", "changed order", "saga"], "/contents", LIST),
    (["order", "changed order", "saga"], "/contents/1", ELEMENT),
    (["order", "changed order", "saga"], "/contents/1/item", TEXT + LONG),
    (["order", "changed order", "saga"], "/contents/1/amount", AMOUNT),
    (["order", "changed order", "saga"], "/contents/1/price", PRICE),
    (["order", "changed order", "payment", "changed payment", "delivery", "changed delivery", "changed reservation"],
     "/status", STATUS),
    (["saga", "delivery", "changed delivery"], "/timeDelivery", TIME),
    (["saga"], "/billingId", ID),
    (["payment", "changed payment", "delivery", "changed delivery", "changed reservation"], "/orderId",
     [MISSING, None, *ID]),
    (["payment", "changed payment"], "/cost", COST),
    (["reservations"], "/1", ELEMENT),
    (["reservations"], "/1/orderId", [MISSING, None, *ID]),
    (["reservations"], "/1/item", TEXT + LONG),
    (["reservations"], "/1/amount", [*COUNT, 0, 1000001]),
    (["reservations"], "/1/status", STATUS),
    (["changed reservation"], "/item", TEXT + LONG),
    (["changed reservation"], "/amount", [*COUNT, 0, 1000001]),
    (["stock"], "/available", [MISSING, None, *COUNT]),
    (["slot"], "/capacity", [MISSING, None, *COUNT]),
    (["user", "changed user"], "/name", TEXT + LONG),
    (["user", "changed user"], "/email", EMAIL),
    (["account"], "/wallet", MONEY),
]


def spoil(body, pointer, value):
    """The body with one member replaced or omitted, as JSON text."""
    mark, body = str(uuid.uuid4()), copy.deepcopy(body)
    *way, last = [int(part) if part.isdigit() else part for part in pointer.split("/")[1:]]
    inner = body
    for part in way:
        inner = inner[part]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = mark if isinstance(value, Raw) else value
    text = encode(body)
    return text.replace(f'"{mark}"'.encode(), value.text.encode()) if isinstance(value, Raw) else text


@pytest.mark.parametrize("name,pointer,values", [
    pytest.param(name, pointer, values, id=f"{name} {pointer}") for names, pointer, values in FIELDS for name in names])
def test_field(shop, name, pointer, values):
    make, method, path = REQUESTS[name]
    good = make()
    for value in values:
        answer = shop.request(method, path, spoil(good, pointer, value))
        try:
            problem(answer, 422, pointer)
        except AssertionError as error:
            shown = "MISSING" if value is MISSING else repr(value)[:60]
            raise AssertionError(f"{pointer} = {shown}: {error}") from None


@pytest.mark.parametrize("method,path", [request[1:] for request in REQUESTS.values()], ids=REQUESTS)
def test_whole_body_of_another_type(shop, method, path):
    for body in ("null", "5", "true", '"text"', "{}" if path == "/warehouse/warehouse" else "[]"):
        problem(shop.request(method, path, body), 400, "")


def test_lists_of_none_and_of_too_many(shop):
    problem(shop.post("/warehouse/warehouse", []), 422, "")
    problem(shop.post("/warehouse/warehouse", [reservation()] * 501), 422, "")


def test_price_of_everything_that_overflows(shop):
    problem(shop.post("/order/order/saga", saga([line("gold", 1000000, 80000000000000000)])), 422, "/contents")
    many = [line("gold", 1, 80000000000000000), line("gold", 1, 80000000000000000)]
    problem(shop.post("/order/order/saga", saga(many)), 422, "/contents")


def test_order_that_costs_nothing(shop):
    problem(shop.post("/order/order/saga", saga([line(price=0)])), 422, "/contents")


NO_JSON = {
    "empty": b"", "blank": b"  ", "cut object": b'{"status":"PENDING"', "cut string": b'{"status":"PEN', "cut list": b"[1,2",
    "cut literal": b"nul", "capitals": b"NULL", "apostrophes": b"{'a':1}", "comma at the end": b'{"a":1,}',
    "comma in a list": b"[1,]", "no quotes": b"{a:1}", "no colon": b'{"a" 1}', "no comma": b'{"a":1 "b":2}',
    "leading zero": b'{"a":01}', "leading point": b'{"a":.5}', "trailing point": b'{"a":5.}', "plus": b'{"a":+1}',
    "hexadecimal": b'{"a":0x10}', "NaN": b'{"a":NaN}', "Infinity": b'{"a":Infinity}', "lone minus": b'{"a":-}',
    "empty exponent": b'{"a":1e}', "control character": b'{"a":"\x01"}', "newline in a string": b'{"a":"\n"}',
    "bad escape": b'{"a":"\\x41"}', "cut escape": b'{"a":"\\u12"}', "lone surrogate": b'{"a":"\\ud800"}',
    "reversed surrogates": b'{"a":"\\udc00\\ud800"}', "UTF-16": '{"a":1}'.encode("utf-16"), "latin-1": b'{"a":"\xe9"}',
    "bytes that are never UTF-8": b'{"a":"\xff\xfe"}', "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}', "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"a":"\xe2\x82"}', "not UTF-8 in a key": b'{"\xff":1}', "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "UTF-16 without mark": '{"a":1}'.encode("utf-16-le"), "UTF-32": '{"a":1}'.encode("utf-32"),
    "two texts": b"{} {}", "text behind": b"{}x", "comment": b'{"a":1 /* one */}', "zero bytes": b"\0" * 64,
    "form": b"status=PENDING&item=phone", "XML": b"<order/>",
    "deep lists": b"[" * 10000 + b"]" * 10000, "deep lists without end": b"[" * 10000,
    "deep objects": b'{"a":' * 10000 + b"1" + b"}" * 10000,
    "deep in an unknown member": b'{"x":' + b"[" * 10000 + b"]" * 10000 + b',"status":"PENDING"}',
    "a million brackets": b"[" * 1000000,
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_no_json(shop, body):
    assert problem(shop.post("/order/order", body), 400)["detail"]


def test_a_byte_order_mark_is_ignored(shop):
    made = ok(shop.post("/order/order", b"\xef\xbb\xbf" + encode(order())))
    assert done(shop.delete(f"/order/order/{made['id']}"))


@pytest.mark.parametrize("segment,reason", [
    ("a%00b", "U+0000"), ("%ff", "UTF-8"), ("%c3%28", "UTF-8"), ("a%zz", "hexadecimal"), ("a%2", "hexadecimal"), ("%", "hexadecimal"),
    ("", "empty")])
def test_a_bad_path_segment_is_explained(shop, segment, reason):
    for answer in (shop.get(f"/warehouse/stock/{segment}"), shop.put(f"/warehouse/stock/{segment}", {"available": 1})):
        detail = problem(answer, 400)["detail"]
        assert "{item}" in detail and reason in detail, detail
    detail = problem(shop.put(f"/billing/billing/{uuid.uuid4()}/{segment}"), 400)["detail"]
    assert "{sum}" in detail and reason in detail, detail


@pytest.mark.parametrize("method,path", [request[1:] for request in REQUESTS.values()], ids=REQUESTS)
def test_no_json_anywhere(shop, method, path):
    for body in (b"", b"{", b"[" * 10000, b'{"a":"\xff"}'):
        problem(shop.request(method, path, body), 400)


@pytest.mark.parametrize("body,pointer", [
    (b'{"status":"PENDING","status":"PENDING","contents":[{"item":"a","amount":1,"price":1}]}', "/status"),
    (b'{"status":"PENDING","contents":[{"item":"a","amount":1,"price":1,"amount":2}]}', "/contents/0/amount"),
    (b'{"status":"PENDING","contents":[{"item":"a","amount":1,"price":1}],"x":{"y":1,"y":2}}', "/x/y"),
    (b'{"status":"PENDING","st\\u0061tus":"SUCCESS","contents":[{"item":"a","amount":1,"price":1}]}', "/status"),
])
def test_duplicate_keys(shop, body, pointer):
    """Neither of the two values is used."""
    problem(shop.post("/order/order", body), 400, pointer)


def test_nesting_within_the_bound_is_read(shop):
    body = encode(order())[:-1] + b',"unknown":' + b"[" * 28 + b"]" * 28 + b"}"
    made = ok(shop.post("/order/order", body))
    assert done(shop.delete(f"/order/order/{made['id']}"))


def test_bodies_of_a_megabyte(shop):
    """At the limit a body is read. One that is longer is refused before it is sent: see test_http.py."""
    start, end = b'{"status":"PENDING","x":"', b'"}'
    fits = start + b"a" * (1024 * 1024 - len(start) - len(end)) + end
    problem(shop.post("/order/order", fits), 422, "/contents")


def test_a_great_many_values(shop):
    answer = shop.post("/order/order", b'{"x":[' + b"1," * 400000 + b"1]}")
    assert answer.status in (400, 413, 422)
    problem(answer, answer.status)


BAD_IDS = ["abc", "0", "%00", "-1", "123e4567-e89b-12d3-a456-42661417400", "123e4567-e89b-12d3-a456-42661417400g",
           "123e4567e89b12d3a456426614174000ff", "%7Bid%7D", "%ff%fe", "..%2f..%2fetc%2fpasswd", "%", "%zz", "null",
           "'%20OR%201=1--", "x" * 5000, "123e4567-e89b-12d3-a456-426614174000%20"]
OBJECTS = ["/order/order", "/order/saga", "/payment/payment", "/warehouse/warehouse", "/delivery/delivery", "/user/user",
           "/user/user/billing_id", "/billing/billing", "/notification/notification"]


@pytest.mark.parametrize("path", OBJECTS)
def test_ids_that_are_none(shop, path):
    for bad in BAD_IDS:
        problem(shop.get(f"{path}/{bad}"), 400)


@pytest.mark.parametrize("name", [name for name, (_, method, path) in REQUESTS.items()
                                  if method == "PUT" and len(path.split("/")) == 4 and path.count("-") == 4])
def test_ids_that_are_none_in_a_change(shop, name):
    make, _, path = REQUESTS[name]
    base = path.rsplit("/", 1)[0]
    for bad in BAD_IDS:
        problem(shop.put(f"{base}/{bad}", make()), 400)
        problem(shop.delete(f"{base}/{bad}"), 400)


def test_accounts_that_are_none(shop):
    for bad in BAD_IDS:
        problem(shop.put(f"/billing/billing/{bad}/5"), 400)
        problem(shop.put(f"/billing/billing/refill/{bad}/5"), 400)
        problem(shop.delete(f"/billing/billing/{bad}"), 400)


def test_slots_that_are_none(shop):
    for bad in ("tomorrow", "2094-02-30T10:00:00", "2094-01-01", "%00", "2094-01-01T25:00"):
        problem(shop.get(f"/delivery/slot/{bad}"), 400)
        problem(shop.put(f"/delivery/slot/{bad}", {"capacity": 1}), 400)


def test_items_that_are_none(shop):
    for bad in ("%00", "a%00b", "%ff", "x" * 201, "%zz"):
        problem(shop.get(f"/warehouse/stock/{bad}"), 400)
        problem(shop.put(f"/warehouse/stock/{bad}", {"available": 1}), 400)
    for bad in ("a%0ab", "%09", "%7f", "a%c2%85", "%20", "%e3%80%80"):
        assert problem(shop.put(f"/warehouse/stock/{bad}", {"available": 1}), 400)["detail"]


@pytest.mark.parametrize("name", ["a\tb", b"a\xc2\x85b", b"\xc2\xa0"])
def test_operators_names_that_are_none(shop, name):
    answer = shop.post(f"/order/saga/{uuid.uuid4()}/retry", X_Operator=name)
    assert "X-Operator" in problem(answer, 400)["detail"]


@pytest.mark.parametrize("value", ["a\nb", "\u0085", "  "])
def test_reasons_that_are_none(shop, value):
    for command, body in (("retry", {}), ("cancel", {}), ("skip", {"step": "delivery"})):
        answer = shop.post(f"/order/saga/{uuid.uuid4()}/{command}", body | {"reason": value})
        problem(answer, 422, "/reason")
    problem(shop.post(f"/order/saga/{uuid.uuid4()}/skip", {"step": value, "reason": "x"}), 422, "/step")


@pytest.mark.parametrize("query", ["page_size=0", "page_size=-1", "page_size=x", "page_size=", "page_size=1.5",
                                   "page_size=99999999999999999999", "page_token=x", "page_token=", "page_token=%00",
                                   "page_size=5&page_token=%27"])
@pytest.mark.parametrize("path", ["/order/saga", "/notification/notification"])
def test_pages_that_are_none(shop, path, query):
    problem(shop.get(f"{path}?{query}"), 400)


@pytest.mark.parametrize("state", ["", "x", "running", "SUCCESS", "%00", "'"])
def test_saga_states_that_are_none(shop, state):
    problem(shop.get(f"/order/saga?state={state}"), 400)


@pytest.mark.parametrize("key", ["", " ", '""', "a b", "x" * 256, "ключ".encode(), "tab\tinside", "\x7f"])
def test_keys_that_are_none(shop, key):
    answer = shop.post("/payment/payment", payment(), key=key)
    assert answer.status == 400, answer


def test_content_type_that_is_not_json(shop):
    """Many clients send JSON with another content type; a body that is not JSON is refused in any case."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        problem(shop.post("/payment/payment", b"cost=1", Content_Type=kind), 400)
