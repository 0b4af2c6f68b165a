"""Calls between services: what a participant's response means, and how long it works for its caller."""

import concurrent.futures
import contextlib

import pytest

from harness.check import ok
from harness.gate import Gate
from harness.goods import new_account, past, saga, wallet
from harness.metrics import scrape
from harness.server import SLOWER
from harness.shop import SevenShops, opened
from harness.wait import wait_for

SAGA = "/order/order/saga"
REFUSALS = 3


@pytest.fixture(scope="module")
def seven():
    """Payment calls Billing through a gate."""
    shop = SevenShops(SAGA_PARK_REFUSALS=REFUSALS, SAGA_ATTEMPT_TIMEOUT="500ms", REQUEST_TIMEOUT="120s")
    with contextlib.ExitStack() as stack:
        shop.gate = Gate(shop.ports["billing"])
        stack.callback(shop.gate.close)
        shop.more["BILLING_URL"] = shop.gate.url
        yield stack.enter_context(opened(shop))
        shop.assert_sound()
        shop.stop()


def state(shop, order):
    return ok(shop.get(f"/order/saga/{order}"))["state"]


@pytest.mark.parametrize("status", [408, 425, 429, 302, 503])
def test_a_purchase_of_unknown_outcome_is_retried(seven, status):
    account = new_account(seven, 1000)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with seven.gate.refusing("/buy", status=status):
            before = seven.gate.refused
            waiting = pool.submit(seven.post, SAGA, saga(account=account))
            wait_for("a second attempt", lambda: seven.gate.refused >= before + 2 or waiting.done(), 20 * SLOWER)
        assert ok(waiting.result())[0]["status"] == "SUCCESS"
    assert wallet(seven, account) < 1000


@pytest.mark.parametrize("status", [408, 429])
def test_a_refund_of_unknown_outcome_parks_nothing(seven, status):
    """Refusals are counted towards parking, and this is none."""
    account = new_account(seven, 1000)
    with seven.gate.refusing("/refund", status=status):
        before = seven.gate.refused
        order = seven.post(SAGA, saga(when=past(), account=account), Prefer="respond-async").json["id"]
        wait_for("more attempts than refusals are allowed", lambda: seven.gate.refused > before + REFUSALS
                 or state(seven, order) == "PARKED", 20 * SLOWER)
        assert state(seven, order) == "COMPENSATING"
    wait_for("the compensation", lambda: state(seven, order) == "COMPENSATED", 20 * SLOWER)
    assert wallet(seven, account) == 1000


def timeouts(server):
    """The requests that it gave up at their deadline."""
    return scrape(server).total("http_server_request_duration_seconds_count", http_response_status_code="504")


def test_a_participant_works_no_longer_than_its_caller_waits(seven):
    """Billing is called by Payment, and Payment by Order, which waits half a second."""
    account = new_account(seven, 1000)
    billing, payment = seven.servers["billing"], seven.servers["payment"]
    before = timeouts(billing), timeouts(payment)
    with contextlib.closing(seven.cluster.connect(seven.database("billing"))) as db, db.cursor() as cursor:
        db.autocommit = False
        cursor.execute("SELECT FROM billing.accounts WHERE id = %s FOR UPDATE", (account,))
        seven.post(SAGA, saga(account=account), Prefer="respond-async")
        wait_for("their timeouts", lambda: timeouts(billing) > before[0] and timeouts(payment) > before[1], 8 * SLOWER)
    seven.settle()
