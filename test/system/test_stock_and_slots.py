"""Stock and delivery slots: reservations never exceed what is available."""

import concurrent.futures
import uuid

import pytest

from harness.check import done, ok, problem, refused
from harness.goods import delivery, future, past, reservation, set_slot, set_stock, stock, taken, unique


def reserve(shop, item, **changes):
    return shop.post("/warehouse/warehouse", [reservation(item=item, **changes)])


def test_item_without_a_stock_record_is_made_to_order(shop):
    item = unique("bespoke")
    for _ in range(3):
        assert ok(reserve(shop, item, amount=1000000))[0]["status"] == "RESERVED"
    problem(shop.get(f"/warehouse/stock/{item}"), 404)


@pytest.mark.parametrize("item", ["a,b", "{c}", 'say "hi"', "back\\slash", "\\", "NULL", "a b"])
def test_item_whose_name_means_something_in_an_array(shop, item):
    """Items go to PostgreSQL as arrays, in which they are text and nothing else."""
    made = ok(shop.post("/warehouse/warehouse", [reservation(item=item), reservation(item="phone")]))
    assert [one["item"] for one in made] == [item, "phone"]
    assert [shop.value("warehouse", "SELECT item FROM warehouse.reservations WHERE id = %s", one["id"])
            for one in made] == [item, "phone"]


def test_stock_record(shop):
    item = unique("stocked")
    assert ok(shop.put(f"/warehouse/stock/{item}", {"available": 5})) == {"item": item, "available": 5, "reserved": 0}
    assert ok(shop.get(f"/warehouse/stock/{item}")) == {"item": item, "available": 5, "reserved": 0}
    assert ok(shop.put(f"/warehouse/stock/{item}", {"available": 0}))["available"] == 0


def test_reservation_takes_from_stock_until_it_is_empty(shop):
    item = set_stock(shop, 3)
    ok(reserve(shop, item))
    ok(reserve(shop, item, amount=2))
    assert stock(shop, item) == (0, 3)
    body = refused(reserve(shop, item))
    assert item in body["detail"]
    assert stock(shop, item) == (0, 3)


def test_all_of_a_list_or_nothing(shop):
    plenty, few = set_stock(shop, 10), set_stock(shop, 1)
    before = shop.value("warehouse", "SELECT count(*) FROM warehouse.reservations")
    refused(shop.post("/warehouse/warehouse", [reservation(item=plenty, amount=4), reservation(item=few, amount=2)]))
    assert stock(shop, plenty) == (10, 0) and stock(shop, few) == (1, 0)
    assert shop.value("warehouse", "SELECT count(*) FROM warehouse.reservations") == before


def test_lines_of_the_same_item_count_together(shop):
    item = set_stock(shop, 3)
    refused(shop.post("/warehouse/warehouse", [reservation(item=item, amount=2), reservation(item=item, amount=2)]))
    assert stock(shop, item) == (3, 0)
    ok(shop.post("/warehouse/warehouse", [reservation(item=item, amount=1), reservation(item=item, amount=2)]))
    assert stock(shop, item) == (0, 3)


def test_cancel_gives_back(shop):
    item = set_stock(shop, 3)
    made = ok(reserve(shop, item, amount=2))[0]
    path = f"/warehouse/warehouse/{made['id']}"
    canceled = reservation(orderId=made["orderId"], item=item, status="CANCELED")
    for _ in range(2):
        assert done(shop.put(path, canceled)) is True
        assert stock(shop, item) == (3, 0)


def test_removed_reservation_gives_back(shop):
    item = set_stock(shop, 3)
    made = ok(reserve(shop, item, amount=2))[0]
    assert done(shop.delete(f"/warehouse/warehouse/{made['id']}"))
    assert stock(shop, item) == (3, 0)


def test_changed_reservation_moves_stock(shop):
    one, other = set_stock(shop, 5), set_stock(shop, 1)
    made = ok(reserve(shop, one, amount=3))[0]
    path = f"/warehouse/warehouse/{made['id']}"
    assert done(shop.put(path, reservation(item=one, amount=5)))
    assert stock(shop, one) == (0, 5)
    refused(shop.put(path, reservation(item=one, amount=6)))
    refused(shop.put(path, reservation(item=other, amount=2)))
    assert stock(shop, one) == (0, 5) and stock(shop, other) == (1, 0)
    assert done(shop.put(path, reservation(item=other, amount=1)))
    assert stock(shop, one) == (5, 0) and stock(shop, other) == (0, 1)


def test_reservation_from_before_the_stock_record_gives_nothing_back(shop):
    item = unique("late")
    made = ok(reserve(shop, item, amount=4))[0]
    ok(shop.put(f"/warehouse/stock/{item}", {"available": 2}))
    assert done(shop.delete(f"/warehouse/warehouse/{made['id']}"))
    assert stock(shop, item) == (2, 0)


def test_many_at_once_never_take_more_than_there_is(shop):
    item = set_stock(shop, 7)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: reserve(shop, item), range(20)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [409] * 13
    assert stock(shop, item) == (0, 7)


def test_many_at_once_with_items_in_opposite_order(shop):
    """Locking in the order of the request would deadlock these."""
    one, other = set_stock(shop, 100), set_stock(shop, 100)
    pair = [reservation(item=one), reservation(item=other)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: shop.post("/warehouse/warehouse", pair[::-1] if i % 2 else pair), range(64)))
    assert [answer.status for answer in answers] == [200] * 64
    assert stock(shop, one) == stock(shop, other) == (36, 64)


def test_time_without_a_slot_record_is_unlimited(shop):
    when = future(90)
    for _ in range(3):
        assert ok(shop.post("/delivery/delivery", delivery(timeDelivery=when)))["status"] == "SCHEDULED"
    problem(shop.get("/delivery/slot/2094-05-26T16:00:00"), 404)


def test_slot_record(shop):
    when = set_slot(shop, 2)
    shown = ok(shop.get(f"/delivery/slot/{when}"))
    assert shown["capacity"] == 2 and shown["taken"] == 0
    assert shown["timeDelivery"] == when.removesuffix(":00")
    assert ok(shop.get(f"/delivery/slot/{when.removesuffix(':00')}")) == shown


def test_slot_takes_as_many_as_it_holds(shop):
    when = set_slot(shop, 2)
    ok(shop.post("/delivery/delivery", delivery(timeDelivery=when)))
    ok(shop.post("/delivery/delivery", delivery(timeDelivery=when)))
    refused(shop.post("/delivery/delivery", delivery(timeDelivery=when)))
    assert taken(shop, when) == 2


def test_canceled_delivery_takes_no_place(shop):
    when = set_slot(shop, 1)
    ok(shop.post("/delivery/delivery", delivery(timeDelivery=when, status="CANCELED")))
    assert taken(shop, when) == 0
    made = ok(shop.post("/delivery/delivery", delivery(timeDelivery=when)))
    path = f"/delivery/delivery/{made['id']}"
    for _ in range(2):
        assert done(shop.put(path, delivery(timeDelivery=when, status="CANCELED")))
        assert taken(shop, when) == 0


def test_delivery_moves_between_slots(shop):
    one, other, full = set_slot(shop, 1), set_slot(shop, 1), set_slot(shop, 0)
    made = ok(shop.post("/delivery/delivery", delivery(timeDelivery=one)))
    path = f"/delivery/delivery/{made['id']}"
    refused(shop.put(path, delivery(timeDelivery=full)))
    assert taken(shop, one) == 1
    assert done(shop.put(path, delivery(timeDelivery=one)))
    assert taken(shop, one) == 1
    assert done(shop.put(path, delivery(timeDelivery=other)))
    assert (taken(shop, one), taken(shop, other), taken(shop, full)) == (0, 1, 0)
    assert done(shop.delete(path))
    assert taken(shop, other) == 0


def test_capacity_is_never_below_what_is_taken(shop):
    when = set_slot(shop, 2)
    ok(shop.post("/delivery/delivery", delivery(timeDelivery=when)))
    answer = shop.put(f"/delivery/slot/{when}", {"capacity": 0})
    assert answer.status in (409, 422)
    problem(answer, answer.status, "/capacity")
    assert ok(shop.put(f"/delivery/slot/{when}", {"capacity": 1}))["capacity"] == 1
    refused(shop.post("/delivery/delivery", delivery(timeDelivery=when)))


def test_many_at_once_never_take_more_places_than_there_are(shop):
    when = set_slot(shop, 5)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: shop.post("/delivery/delivery", delivery(timeDelivery=when)), range(16)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [409] * 11
    assert taken(shop, when) == 5


@pytest.mark.parametrize("when", [pytest.param(past(), id="yesterday"), "1970-01-01T00:00:00", "2020-01-01T00:00",
                                  "0001-01-01T00:00:00"])
def test_delivery_in_the_past_is_refused(shop, when, unchanged):
    problem(shop.post("/delivery/delivery", delivery(timeDelivery=when)), 422, "/timeDelivery")


def test_delivery_is_not_moved_into_the_past(shop):
    made = ok(shop.post("/delivery/delivery", delivery()))
    path = f"/delivery/delivery/{made['id']}"
    problem(shop.put(path, delivery(timeDelivery=past())), 422, "/timeDelivery")
    assert ok(shop.get(path)) == made


def test_refused_reservation_leaves_its_key_free(shop):
    item, key = set_stock(shop, 0), str(uuid.uuid4())
    body = [reservation(item=item)]
    refused(shop.post("/warehouse/warehouse", body, key=key))
    ok(shop.put(f"/warehouse/stock/{item}", {"available": 1}))
    ok(shop.post("/warehouse/warehouse", body, key=key))
    assert stock(shop, item) == (0, 1)
