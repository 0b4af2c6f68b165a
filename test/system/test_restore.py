"""The recovery drill of docs/backup.md: what a restored backup contains, what the audit finds, and how missing events
are republished."""

import contextlib
import pathlib
import re
import shutil
import subprocess
import threading

import pytest

from harness.check import ok
from harness.goods import new_account, new_user, refill, saga
from harness.server import SLOWER
from harness.shop import SERVICES, SevenShops, opened
from harness.wait import wait_for

SAGA = "/order/order/saga"
SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'billing' AND NOT active"
AGAIN = """
BEGIN;
CREATE TEMPORARY TABLE again ON COMMIT DROP AS SELECT * FROM billing.history_billings WHERE id = ANY(%s::uuid[]);
DELETE FROM billing.history_billings WHERE id IN (SELECT id FROM again);
INSERT INTO billing.history_billings SELECT * FROM again;
COMMIT
"""


RENUMBER = """
UPDATE notification.notifications n SET lsn = o.place - o.total FROM
  (SELECT id, row_number() OVER (ORDER BY lsn, seq) AS place, count(*) OVER () AS total
   FROM notification.notifications) o WHERE n.id = o.id
"""


@pytest.fixture
def seven():
    with opened(SevenShops()) as shops:
        yield shops
        shops.stop()


def program(shop, name):
    version = int(shop.value("order", "SHOW server_version_num")) // 10000
    path = pathlib.Path(f"/usr/lib/postgresql/{version}/bin/{name}")
    return path if path.exists() else shutil.which(name)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def place(shop, account=None):
    return ok(shop.post(SAGA, saga(account=account)))[0]["id"]


@contextlib.contextmanager
def orders_coming_in(shop):
    """Places orders one by one in the background; yields the list of the acknowledged ones."""
    placed, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            placed.append(place(shop))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield placed
    finally:
        stop.set()
        thread.join(60 * SLOWER)
        assert not thread.is_alive()


def come_back(shop):
    """The operator's steps after restoring the databases: migrate and start."""
    shop.migrate()
    shop.start()
    wait_for("the end of all sagas", lambda: shop.in_flight() == 0, 60 * SLOWER)


def restore_base_backup(shop, backup):
    data = shop.cluster.dir.resolve() / "data"
    owner, group = data.owner(), data.group()
    shop.forget_connections()
    shop.cluster.stop()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    for path in [data, *data.rglob("*")]:
        shutil.chown(path, owner, group)
    shop.cluster.start()


def missing_notifications(output):
    return re.findall(r"history row (\S+) \(\w+ of wallet \S+\): expected 1 notification, found none", output)


def test_base_backup_under_load_is_one_moment_of_all_databases(seven, tmp_path):
    account = new_account(seven, 0)
    seven.settle()
    seven.servers["notification"].terminate()
    seven.servers["notification"].wait()
    refill(seven, account, 50)  # whose event waits in the slot, which no backup holds
    with orders_coming_in(seven) as placed:
        wait_for("some orders", lambda: len(placed) >= 20, 60 * SLOWER)
        before = list(placed)
        run(program(seven, "pg_basebackup"), "-d", seven.cluster.url("postgres"), "-D", tmp_path / "backup",
            "-X", "stream", "-c", "fast")
    late = place(seven)
    for name, server in seven.servers.items():
        if name != "notification":  # which has ended already
            server.kill()

    restore_base_backup(seven, tmp_path / "backup")
    come_back(seven)
    kept = {row[0] for row in seven.query("order", "SELECT id::text FROM \"order\".orders WHERE status = 'SUCCESS'")}
    assert kept.issuperset(before)
    assert late not in kept
    done = seven.audit()
    [lost] = missing_notifications(done.stdout)
    assert done.returncode == 1 and "1 violation" in done.stdout, done.stdout

    seven.execute("billing", AGAIN, [lost])
    seven.assert_sound()
    place(seven)


def dump(shop, service, folder):
    run(program(shop, "pg_dump"), "-Fc", "-f", folder / service, shop.cluster.url(service))


def restore_dump(shop, service, folder):
    with contextlib.closing(shop.cluster.connect("postgres")) as db, db.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{service}" WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE "{service}"')
    run(program(shop, "pg_restore"), "-d", shop.cluster.url(service), folder / service)


def restore_dumps(shop, folder):
    shop.kill()
    wait_for("the end of the slot's reader", lambda: not shop.value(
        "billing", "SELECT count(*) FROM pg_replication_slots WHERE active"), 60 * SLOWER)
    shop.query("billing", SLOT)
    shop.forget_connections()
    for service in SERVICES:
        restore_dump(shop, service, folder)


def test_dumps_of_a_resting_shop_are_whole(seven, tmp_path):
    place(seven, new_account(seven, 500))
    seven.settle()
    for service in SERVICES:
        dump(seven, service, tmp_path)
    late = place(seven)
    restore_dumps(seven, tmp_path)
    come_back(seven)
    seven.assert_sound()
    assert seven.value("order", 'SELECT count(*) FROM "order".orders WHERE id = %s', late) == 0
    place(seven)


def test_dumps_in_a_new_cluster_keep_the_order_of_notifications(seven, tmp_path):
    """Its WAL positions start again, below those of the notifications."""
    user = new_user(seven)
    for _ in range(3):
        seven.query("billing", "SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()")
    for number in (1, 2):
        refill(seven, user["billingId"], number)
    seven.settle()
    seven.stop()
    for service in SERVICES:
        dump(seven, service, tmp_path)
    seven.forget_connections()
    seven.cluster.stop()
    shutil.rmtree(seven.cluster.dir.resolve() / "data")
    seven.cluster.start()
    for service in SERVICES:
        restore_dump(seven, service, tmp_path)
    seven.execute("notification", RENUMBER)
    come_back(seven)
    refill(seven, user["billingId"], 3)
    seven.assert_sound()
    told = [one["message"] for one in ok(seven.get(f"/notification/notification/{user['id']}"))]
    assert [re.search(r"now holds (\d+)|opened", one)[1] for one in told] == [None, "1", "3", "6"]


def restore_torn(shop, older, folder):
    """Restores one database from before an order, the others from after it. Returns that order and one from before
    both."""
    first = place(shop)
    shop.settle()
    dump(shop, older, folder)
    torn = place(shop)
    shop.settle()
    for service in SERVICES:
        if service != older:
            dump(shop, service, folder)
    restore_dumps(shop, folder)
    come_back(shop)
    return first, torn


def test_audit_tells_a_participant_older_than_the_orders(seven, tmp_path):
    first, torn = restore_torn(seven, "payment", tmp_path)
    done = seven.audit()
    assert done.returncode == 1
    [blamed] = [line for line in done.stdout.splitlines() if torn in line]
    assert "successful payment: expected 123.45, found none" in blamed
    assert first not in done.stdout


def test_orders_older_than_the_participants_are_found_by_comparing(seven, tmp_path):
    """A payment may belong to an order recorded elsewhere, so the audit does not report it."""
    first, torn = restore_torn(seven, "order", tmp_path)
    assert seven.audit().returncode == 0
    known = {row[0] for row in seven.query("order", 'SELECT id::text FROM "order".orders')}
    for table in ("payment.payments", "warehouse.reservations", "delivery.deliveries"):
        told = {row[0] for row in seven.query(table.split(".")[0], f"SELECT order_id::text FROM {table}")}
        assert told - known == {torn}
        assert first in told
