"""Every wallet operation is notified to its user once, in order, and promptly."""

import concurrent.futures
import statistics
import time
import uuid
from decimal import Decimal

import pytest

from harness.check import is_uuid, next_page, ok, pages
from harness.goods import buy, new_account, new_user, past, refill, saga
from harness.server import SLOWER
from harness.wait import wait_for

PATH = "/notification/notification"
PROMISED_SECONDS = 2
MEDIAN_SECONDS = 0.1


def told(shop, user):
    return ok(shop.get(f"{PATH}/{user['id']}"))


def wait_told(shop, user, count, seconds=PROMISED_SECONDS):
    def all_there():
        found = told(shop, user)
        return found if len(found) >= count else None
    return wait_for(f"{count} notifications", all_there, seconds * SLOWER)


def test_four_operations_are_four_notifications(shop):
    user = new_user(shop)
    assert refill(shop, user["billingId"], "100")
    assert buy(shop, user["billingId"], "48.7") is True
    assert buy(shop, user["billingId"], "333.33") is False
    found = wait_told(shop, user, 4)
    assert len(found) == 4
    for one in found:
        assert set(one) == {"id", "userId", "message", "email"}
        assert is_uuid(one["id"]) and one["userId"] == user["id"] and one["email"] == user["email"]
    texts = [one["message"] for one in found]
    assert len(set(texts)) == 4
    assert "100" in texts[1] and "48.7" in texts[2] and "51.3" in texts[2] and "333.33" in texts[3]
    shop.settle()
    assert told(shop, user) == found, "no more of them come later"


def test_nobody_is_told_of_others(shop):
    one, other = new_user(shop), new_user(shop)
    assert refill(shop, one["billingId"], "7.77")
    wait_told(shop, one, 2)
    assert len(wait_told(shop, other, 1)) == 1


def test_unknown_user_has_no_notifications(shop):
    assert ok(shop.get(f"{PATH}/{uuid.uuid4()}")) == []


def test_order_of_an_account_is_kept(shop):
    user = new_user(shop)
    for i in range(1, 31):
        assert refill(shop, user["billingId"], f"{i}.25")
    found = wait_told(shop, user, 31)
    wallets, total = [], Decimal(0)
    for i in range(1, 31):
        total += Decimal(f"{i}.25")
        wallets.append(f"{total:.2f}")
    for text, sum_then in zip([one["message"] for one in found[1:]], wallets):
        assert f" {sum_then}." in text or f" {sum_then} " in text, (text, sum_then)


def test_one_for_each_operation_of_many_at_once(shop):
    users = [new_user(shop) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: refill(shop, users[i % 8]["billingId"], "1"), range(160)))
    for user in users:
        wait_told(shop, user, 21, 10)
    shop.settle()
    assert shop.value("notification", "SELECT count(*) FROM (SELECT history_id FROM notification.notifications "
                      "GROUP BY history_id HAVING count(*) > 1) AS twice") == 0
    history = {row[0] for row in shop.query("billing", "SELECT id::text FROM billing.history_billings")}
    assert history == {row[0] for row in shop.query("notification", "SELECT history_id::text FROM notification.notifications")}
    assert [len(told(shop, user)) for user in users] == [21] * 8


def test_refund_is_told(shop):
    user = new_user(shop)
    assert refill(shop, user["billingId"], "500")
    failed = shop.post("/order/order/saga", saga(when=past(), account=user["billingId"]))
    assert failed.status == 424
    shop.settle()
    operations = shop.value("billing", "SELECT count(*) FROM billing.history_billings WHERE billing_id = %s",
                            user["billingId"])
    assert len(wait_told(shop, user, operations)) == operations


def test_account_without_a_user_is_noted_and_holds_up_nobody(shop):
    account = new_account(shop, 5)
    user = new_user(shop)
    wait_told(shop, user, 1)
    shop.settle()
    assert shop.value("notification", "SELECT count(*) FROM notification.notifications WHERE billing_id = %s", account) == 1


def test_pages_of_one_user(shop):
    user = new_user(shop)
    for i in range(1, 8):
        assert refill(shop, user["billingId"], str(i))
    found = wait_told(shop, user, 8)
    answer = shop.get(f"{PATH}/{user['id']}?page_size=3")
    assert len(ok(answer)) == 3 and next_page(answer)
    assert pages(shop, f"{PATH}/{user['id']}?page_size=3") == found


def test_pages_of_all(shop):
    for _ in range(3):
        wait_told(shop, new_user(shop), 1)
    shop.settle()
    found = [one["id"] for one in pages(shop, f"{PATH}?page_size=7")]
    assert len(set(found)) == len(found) == shop.value("notification", "SELECT count(*) FROM notification.notifications")


@pytest.mark.timed
def test_notification_is_there_soon(shop):
    """The median time from the operation's response to its notification."""
    user = new_user(shop)
    wait_told(shop, user, 1)
    times = []
    for i in range(2, 33):
        assert refill(shop, user["billingId"], "1")
        answered = time.monotonic()
        wait_told(shop, user, i)
        times.append(time.monotonic() - answered)
    assert statistics.median(times) < MEDIAN_SECONDS * SLOWER, sorted(times)


def test_renamed_user_is_told_under_the_new_address(shop):
    user = new_user(shop)
    wait_told(shop, user, 1)
    ok(shop.put(f"/user/user/{user['id']}", {"name": "Other", "email": "other@example.org"}))
    assert refill(shop, user["billingId"], "5")
    assert wait_told(shop, user, 2)[1]["email"] == "other@example.org"
