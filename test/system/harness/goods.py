"""Test data: request bodies, users, wallets, stock and slots, all with unique names."""

import datetime
import itertools
import uuid

from .check import done, ok

slots = itertools.count()


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def local(when):
    return when.replace(microsecond=0).isoformat()


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def future(days=30):
    return local(now() + datetime.timedelta(days=days))


def past():
    return local(now() - datetime.timedelta(days=1))


def own_time():
    """A delivery time that no other test uses."""
    return local((now() + datetime.timedelta(days=400)).replace(hour=0, minute=0, second=0)
                 + datetime.timedelta(minutes=next(slots)))


def line(item="phone", amount=1, price=123.45):
    return {"item": item, "amount": amount, "price": price}


def order(status="PENDING", contents=None):
    return {"status": status, "contents": contents or [line()]}


def saga(contents=None, when=None, account=None):
    body = {"contents": contents or [line()], "timeDelivery": when or future()}
    return body | ({"billingId": account} if account else {})


def payment(**changes):
    return {"orderId": str(uuid.uuid4()), "cost": 123.45, "status": "SUCCESS"} | changes


def reservation(**changes):
    return {"orderId": str(uuid.uuid4()), "item": "phone", "status": "RESERVED"} | changes


def delivery(**changes):
    return {"orderId": str(uuid.uuid4()), "timeDelivery": future(), "status": "SCHEDULED"} | changes


def person():
    name = unique("Maksim")
    return {"name": name, "email": f"{name}@example.org"}


def new_user(shop):
    return ok(shop.post("/user/user", person()))


def new_account(shop, wallet):
    return ok(shop.post("/billing/billing", {"wallet": wallet}))["id"]


def wallet(shop, account):
    return ok(shop.get(f"/billing/billing/{account}"))["wallet"]


def buy(shop, account, total, **options):
    return done(shop.put(f"/billing/billing/{account}/{total}", **options))


def refill(shop, account, total, **options):
    return done(shop.put(f"/billing/billing/refill/{account}/{total}", **options))


def set_stock(shop, available):
    """An item with this much stock."""
    item = unique("stocked")
    assert ok(shop.put(f"/warehouse/stock/{item}", {"available": available}))["available"] == available
    return item


def stock(shop, item):
    record = ok(shop.get(f"/warehouse/stock/{item}"))
    return record["available"], record["reserved"]


def set_slot(shop, capacity):
    """A delivery time with this capacity."""
    when = own_time()
    assert ok(shop.put(f"/delivery/slot/{when}", {"capacity": capacity}))["capacity"] == capacity
    return when


def taken(shop, when):
    return ok(shop.get(f"/delivery/slot/{when}"))["taken"]


def history(shop, account):
    """(operation, status) of every operation on the account."""
    return shop.query("billing", "SELECT type_operation, status FROM billing.history_billings WHERE billing_id = %s "
                      "ORDER BY id", account)
