"""A PostgreSQL in which somebody waits: for a row that another transaction has locked, or for a server that can be
written. Who wants nothing of it need not wait, and what is only slow is not given up."""

import concurrent.futures
import contextlib
import time
import uuid

import pytest

from harness.check import ok, problem
from harness.goods import new_account, payment, refill, wallet
from harness.logs import records
from harness.metrics import metric
from harness.server import SLOWER
from harness.shop import OneShop, opened
from harness.wait import wait_for

SLOW_SECONDS = 2.2  # below lock_timeout
SLOW_BUYS = 7  # together longer than one statement may take, and the wait for the server beside it
NOTICED_SECONDS = 15  # an idle connection hears of it with its next heartbeat


@contextlib.contextmanager
def locked(shop, account):
    """Whoever wants this account has to wait until the block is left. Yields who holds it."""
    with contextlib.closing(shop.cluster.connect(shop.database("billing"))) as db:
        db.autocommit = False
        with db.cursor() as cursor:
            cursor.execute("SELECT FROM billing.accounts WHERE id = %s FOR UPDATE", (account,))
        yield db.get_backend_pid()


def wait_blocked(shop, holder, seconds=0.1):
    """A statement has waited for its lock for so long."""
    wait_for("who waits for the lock", lambda: shop.value(
        "billing", "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)) "
        "AND clock_timestamp() - query_start > make_interval(secs => %s)", holder, seconds) > 0)


def buy(shop, account):
    return shop.put(f"/billing/billing/{account}/1")


def seconds_to_buy(shop, account):
    began = time.monotonic()
    assert ok(buy(shop, account)) == {"status": True}
    return time.monotonic() - began


def test_one_locked_account_keeps_nobody_else():
    """Even if it is wanted again and again, at the settings that a shop has by default."""
    with opened(OneShop(WORKERS=1)) as shop, concurrent.futures.ThreadPoolExecutor(3) as pool:
        account, others = new_account(shop, 10), [new_account(shop, 10) for _ in range(10)]
        for other in others:
            buy(shop, other)
        with locked(shop, account) as holder:
            first = pool.submit(buy, shop, account)
            wait_blocked(shop, holder)
            times = [seconds_to_buy(shop, others[0])]
            more = [pool.submit(buy, shop, account) for _ in range(2)]
            times += [seconds_to_buy(shop, other) for other in others]
            assert not first.done()
        assert max(times) < 0.2 * SLOWER, times
        for one in [first, *more]:
            assert ok(one.result()) == {"status": True}
        assert wallet(shop, account) == 7
        shop.assert_sound()
        shop.stop()


def test_as_many_locked_accounts_as_connections():
    """They keep all connections until the lock times out. From then on one connection is left to the others."""
    with opened(OneShop(WORKERS=1)) as shop, concurrent.futures.ThreadPoolExecutor(4) as pool:
        accounts, other = [new_account(shop, 10) for _ in range(2)], new_account(shop, 10)
        with contextlib.ExitStack() as stack:
            for account in accounts:
                stack.enter_context(locked(shop, account))
            buying = [pool.submit(buy, shop, account) for account in accounts]
            wait_for("a group sent again", lambda: metric(shop.server, "skald_db_groups_resent_total") >= 2)
            times = [seconds_to_buy(shop, other) for _ in range(5)]
        assert max(times) < 0.2 * SLOWER, times
        assert [ok(one.result()) for one in buying] == [{"status": True}] * 2
        shop.stop()


def test_slow_batch_is_finished():
    """Purchases of one batch wait for a lock each, one after the other."""
    with opened(OneShop(WORKERS=1, DB_CONNECTIONS=1, REQUEST_TIMEOUT="60s")) as shop:
        first, *accounts = sorted(new_account(shop, 10) for _ in range(1 + SLOW_BUYS))
        with contextlib.ExitStack() as gate, contextlib.ExitStack() as stack:
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1 + SLOW_BUYS))
            locks = [stack.enter_context(contextlib.ExitStack()) for _ in accounts]
            holders = [lock.enter_context(locked(shop, account)) for lock, account in zip(locks, accounts)]
            holder = gate.enter_context(locked(shop, first))
            buying = [pool.submit(buy, shop, first)]
            wait_blocked(shop, holder)
            buying += [pool.submit(buy, shop, account) for account in accounts]
            wait_for("a queue", lambda: metric(shop.server, "skald_db_queued_groups") >= SLOW_BUYS)
            gate.close()
            for lock, holder in zip(locks, holders):
                wait_blocked(shop, holder, SLOW_SECONDS)
                lock.close()
            assert [ok(one.result()) for one in buying] == [{"status": True}] * (1 + SLOW_BUYS)
        shop.assert_sound()
        assert "connection lost" not in shop.server.text()
        shop.stop()


def test_sql_error_names_its_statement_and_its_service():
    with opened(OneShop()) as shop:
        shop.execute("payment", "ALTER TABLE payment.payments ADD CONSTRAINT never CHECK (cost <> 6.66)")
        answer = shop.post("/payment/payment", payment(cost=6.66), key=str(uuid.uuid4()))
        problem(answer, 500)
        found = [one for one in records(shop.server) if "23514" in one["message"]]
        assert len(found) == 1, found
        assert found[0]["component"] == "payment", found
        assert found[0]["message"].startswith("SQL error 23514: "), found
        assert " in: INSERT INTO payment.payments" in found[0]["message"], found
        shop.stop()


def make_read_only(shop, on):
    db = shop.cluster.connect()
    with contextlib.closing(db), db.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {on}")
        cursor.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("idle", [False, True], ids=["in use", "idle"])
def test_server_that_takes_no_writes_is_none(idle):
    """As a demoted primary, or one whose disk is full: it is left, readiness says so, and another one is looked for."""
    with opened(OneShop()) as shop:
        account = new_account(shop, 10)
        shop.forget_connections()
        make_read_only(shop, "on")
        if not idle:
            wait_for("a refusal", lambda: refill_status(shop, account) == 503)
        wait_for("unreadiness", lambda: shop.get("/readyz").status == 503, NOTICED_SECONDS * SLOWER)
        answer = shop.get(f"/billing/billing/{account}")
        problem(answer, 503)
        assert shop.get("/livez").status == 200
        make_read_only(shop, "off")
        wait_for("readiness", lambda: shop.get("/readyz").status == 200, NOTICED_SECONDS * SLOWER)
        refill(shop, account, 5)
        shop.assert_sound()
        shop.stop()


def refill_status(shop, account):
    return shop.put(f"/billing/billing/refill/{account}/1").status
