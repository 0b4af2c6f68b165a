"""Create, read, update and delete, the same for every kind of object."""

import dataclasses
import typing
import uuid
from decimal import Decimal

import pytest

from harness.check import done, is_uuid, media_type, ok, problem
from harness.goods import delivery, future, order, line, payment, person, reservation


@dataclasses.dataclass
class Kind:
    path: str
    make: typing.Callable
    members: set
    change: dict = None
    in_list: bool = False

    def create(self, shop, body=None):
        body = body or self.make()
        made = ok(shop.post(self.path, [body] if self.in_list else body))
        return (made[0] if self.in_list else made), body


KINDS = {
    "order": Kind("/order/order", order, {"id", "contents", "status"},
                  {"status": "CANCELED", "contents": [line("lamp", 2, 0.5), line("cable", 3, 7)]}),
    "payment": Kind("/payment/payment", payment, {"id", "orderId", "cost", "status"}, {"status": "FAILED", "cost": 0.01}),
    "warehouse": Kind("/warehouse/warehouse", reservation, {"id", "orderId", "item", "status"},
                      {"item": "lamp", "status": "CANCELED"}, True),
    "delivery": Kind("/delivery/delivery", delivery, {"id", "orderId", "timeDelivery", "status"},
                     {"timeDelivery": future(60), "status": "CANCELED"}),
    "user": Kind("/user/user", person, {"id", "billingId", "name", "email"}, {"name": "Аня", "email": "a@b.c"}),
    "billing": Kind("/billing/billing", lambda: {"wallet": 51.3}, {"id", "wallet"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
changeable = pytest.mark.parametrize("kind", [k for k in KINDS.values() if k.change],
                                     ids=[name for name, k in KINDS.items() if k.change])


def same(found, sent):
    """Whether the response contains what was sent; order lines get ids, and a time may be written shorter."""
    for name, value in sent.items():
        if name == "contents":
            assert len(found[name]) == len(value)
            for got, wanted in zip(found[name], value):
                same(got, wanted)
        elif isinstance(value, float):
            assert found[name] == Decimal(str(value))
        elif name == "timeDelivery":
            assert found[name] in (value, value.removesuffix(":00"))
        else:
            assert found[name] == value


@every_kind
def test_what_is_created_can_be_read(shop, kind):
    made, sent = kind.create(shop)
    assert set(made) == kind.members
    assert is_uuid(made["id"])
    same(made, sent)
    assert ok(shop.get(f"{kind.path}/{made['id']}")) == made


@every_kind
def test_ids_are_the_shop_s_own(shop, kind):
    body = kind.make() | {"id": str(uuid.uuid4())}
    first, _ = kind.create(shop, body)
    second, _ = kind.create(shop, body)
    assert len({first["id"], second["id"], body["id"]}) == 3


@every_kind
def test_unknown_members_are_ignored(shop, kind):
    made, _ = kind.create(shop, kind.make() | {"colour": "red", "nested": {"a": [1, {"b": None}]}})
    assert set(made) == kind.members


@changeable
def test_change(shop, kind):
    made, sent = kind.create(shop)
    changed = sent | kind.change
    assert done(shop.put(f"{kind.path}/{made['id']}", changed)) is True
    found = ok(shop.get(f"{kind.path}/{made['id']}"))
    same(found, changed)
    assert found["id"] == made["id"]


@changeable
def test_change_of_nothing_is_false_and_makes_nothing(shop, kind, unchanged):
    missing = f"{kind.path}/{uuid.uuid4()}"
    assert done(shop.put(missing, kind.make())) is False
    problem(shop.get(missing), 404)


@every_kind
def test_removed_is_gone(shop, kind):
    made, _ = kind.create(shop)
    path = f"{kind.path}/{made['id']}"
    assert done(shop.delete(path)) is True
    problem(shop.get(path), 404)
    assert done(shop.delete(path)) is False


@every_kind
def test_missing_is_404(shop, kind, unchanged):
    problem(shop.get(f"{kind.path}/{uuid.uuid4()}"), 404)
    assert done(shop.delete(f"{kind.path}/{uuid.uuid4()}")) is False


@every_kind
def test_ids_may_be_written_in_capitals(shop, kind):
    made, _ = kind.create(shop)
    assert ok(shop.get(f"{kind.path}/{made['id'].upper()}")) == made


@every_kind
def test_head_is_get_without_its_body(shop, kind):
    made, _ = kind.create(shop)
    path = f"{kind.path}/{made['id']}"
    whole, head = shop.get(path), shop.request("HEAD", path)
    assert head.status == 200 and head.body == b""
    assert head.headers["content-length"] == str(len(whole.body))
    assert media_type(head) == media_type(whole)


@every_kind
def test_other_methods_are_405_and_say_which_there_are(shop, kind, unchanged):
    answer = shop.request("PATCH", f"{kind.path}/{uuid.uuid4()}", {})
    problem(answer, 405)
    allowed = set(answer.headers["allow"].replace(" ", "").split(","))
    assert {"GET", "DELETE"} <= allowed and "PATCH" not in allowed
    answer = shop.delete(kind.path)
    problem(answer, 405)
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/order", "/order/", "/order/orders", "/shop/shop", "/order/order/1/2/3/4/5/6/7/8/9",
                                  "//order/order", "/ORDER/ORDER", "/order/order/saga/x/y", "/health/x"])
def test_other_paths_are_404(shop, path, unchanged):
    problem(shop.get(path), 404)


@pytest.mark.parametrize("name,statuses", [
    ("order", ["PENDING", "SUCCESS", "CANCELED"]), ("payment", ["SUCCESS", "FAILED", "CANCELED"]),
    ("warehouse", ["RESERVED", "CANCELED"]), ("delivery", ["SCHEDULED", "CANCELED"])])
def test_statuses(shop, name, statuses):
    for status in statuses:
        made, _ = KINDS[name].create(shop, KINDS[name].make() | {"status": status})
        assert made["status"] == status


@pytest.mark.parametrize("written,meant", [
    ("123.45", "123.45"), ("0.01", "0.01"), ("100", "100"), ("100.00", "100"), ("51.30", "51.3"), ("1e2", "100"),
    ("1.5E1", "15"), ("0.1", "0.1"), ("0.3", "0.3"), ("9007199254740993", "9007199254740993"),
    ("70368744177664.01", "70368744177664.01"), ("89999999999999999.99", "89999999999999999.99")])
def test_money_is_exact(shop, written, meant):
    """Binary floating point would lose the last digits of some of these."""
    body = '{"orderId":"%s","cost":%s,"status":"SUCCESS"}' % (uuid.uuid4(), written)
    answer = shop.post("/payment/payment", body)
    assert ok(answer)["cost"] == Decimal(meant)
    found = shop.get(f"/payment/payment/{answer.json['id']}")
    assert found.body.decode().count(f'"cost":{meant},') == 1


@pytest.mark.parametrize("written,shown", [
    ("2099-05-26T16:00:00", "2099-05-26T16:00"), ("2099-05-26T16:00", "2099-05-26T16:00"),
    ("2099-05-26T16:00:05", "2099-05-26T16:00:05"), ("2096-02-29T23:59:59", "2096-02-29T23:59:59"),
    ("2099-01-01T00:00:00.250", "2099-01-01T00:00:00.250"), ("9999-12-31T23:59", "9999-12-31T23:59")])
def test_times_leave_out_seconds_that_are_zero(shop, written, shown):
    made = ok(shop.post("/delivery/delivery", delivery(timeDelivery=written)))
    assert made["timeDelivery"] == shown
    assert ok(shop.get(f"/delivery/delivery/{made['id']}"))["timeDelivery"] == shown


@pytest.mark.parametrize("text", ["Ünïcödé", "日本語", "😀", "quote\"back\\slash/", " two  blanks ", "a\u2028b", "%s%n", "'; DROP TABLE x",
                                  "{}", "null", "a" * 200])
def test_text_comes_back_as_it_was(shop, text):
    made = ok(shop.post("/warehouse/warehouse", [reservation(item=text)]))
    assert ok(shop.get(f"/warehouse/warehouse/{made[0]['id']}"))["item"] == text
    made = ok(shop.post("/order/order", order(contents=[line(text)])))
    assert ok(shop.get(f"/order/order/{made['id']}"))["contents"][0]["item"] == text


@pytest.mark.parametrize("email", ["a.b+c@example.org", "a@b.c", "a@localhost", "юзер@пример.рф", "日本@例え.jp", "o'neil@example.org",
                                   "_!#$%&*/=?^`{|}~-@example.org", '"a,b"@example.org', "a@[192.0.2.1]",
                                   "x" * 64 + "@" + "y" * 180 + ".org"])
def test_addresses_come_back_as_they_were(shop, email):
    made = ok(shop.post("/user/user", person() | {"email": email}))
    assert ok(shop.get(f"/user/user/{made['id']}"))["email"] == email


def test_what_was_stored_before_the_rules_still_counts(shop):
    """Texts that today's clients may not send: users can be read, sagas that hold them can act and compensate."""
    made = ok(shop.post("/user/user", person()))
    shop.execute("user", 'UPDATE "user".users SET name = %s, email = %s WHERE id = %s', "a\nb", "a\r\n@b", made["id"])
    found = ok(shop.get(f"/user/user/{made['id']}"))
    assert (found["name"], found["email"]) == ("a\nb", "a\r\n@b")
    step = {"orderId": str(uuid.uuid4()), "lines": [{"item": "a\nb", "amount": 1}, {"item": " ", "amount": 2}]}
    path = f"/warehouse/step/{uuid.uuid4()}"
    assert [one["item"] for one in ok(shop.put(path, step))] == ["a\nb", " "]
    assert done(shop.put(f"{path}/cancel", step))


def test_order_lines(shop):
    lines = [line(f"item {i}", i + 1, i / 4) for i in range(500)]
    made = ok(shop.post("/order/order", order(contents=lines)))
    assert all(set(one) == {"id", "orderId", "item", "amount", "price"} for one in made["contents"])
    assert {one["orderId"] for one in made["contents"]} == {made["id"]}
    assert len({one["id"] for one in made["contents"]} | {made["id"]}) == 501
    assert [one["item"] for one in made["contents"]] == [one["item"] for one in lines]
    assert ok(shop.get(f"/order/order/{made['id']}")) == made


def test_changed_order_has_only_its_new_lines(shop):
    made = ok(shop.post("/order/order", order(contents=[line(), line(), line()])))
    assert done(shop.put(f"/order/order/{made['id']}", order("SUCCESS", [line("lamp")])))
    assert shop.value("order", 'SELECT count(*) FROM "order".contents WHERE order_id = %s', made["id"]) == 1
    assert done(shop.delete(f"/order/order/{made['id']}"))
    assert shop.value("order", 'SELECT count(*) FROM "order".contents WHERE order_id = %s', made["id"]) == 0


def test_reservations_are_made_as_a_list(shop):
    wanted = [reservation(item=f"item {i}") for i in range(500)]
    made = ok(shop.post("/warehouse/warehouse", wanted))
    assert [one["item"] for one in made] == [one["item"] for one in wanted]
    assert [one["orderId"] for one in made] == [one["orderId"] for one in wanted]
    assert len({one["id"] for one in made}) == 500


def test_unicode_in_the_path(shop):
    assert ok(shop.put("/warehouse/stock/%D1%87%D0%B0%D0%B9", {"available": 3}))["item"] == "чай"
    assert ok(shop.get("/warehouse/stock/%d1%87%d0%b0%d0%b9"))["available"] == 3


def test_a_query_does_not_matter_to_a_single_object(shop):
    made, _ = KINDS["order"].create(shop)
    assert ok(shop.get(f"/order/order/{made['id']}?a=b&page_size=x")) == made
