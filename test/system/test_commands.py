"""The command line: help, invalid settings, migrations, and what a process reports about itself."""

import concurrent.futures
import re
import uuid

import pytest
from ports import free_port
from services import SERVICES

from harness.check import ok
from harness.cluster import Cluster
from harness.goods import payment
from harness.server import Server, skald


@pytest.fixture(scope="module")
def cluster():
    one = Cluster()
    one.start()
    yield one
    one.remove()


def test_help_names_the_commands():
    done = skald("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in ("serve", "migrate", "audit"):
        assert command in done.stdout


@pytest.mark.parametrize("command,names", [("serve", ["DATABASE_URL", "PORT", "HOST", "WORKERS", "ORDER_DATABASE_URL",
                                                      "PAYMENT_URL", "EVENTS"]),
                                           ("migrate", ["DATABASE_URL"]), ("audit", ["DATABASE_URL"])])
def test_help_of_a_command_is_its_settings(command, names):
    done = skald(command, "--help")
    assert done.returncode == 0
    for name in names:
        assert re.search(rf"^\s*{name}\b", done.stdout, re.MULTILINE), done.stdout


def test_help_gives_away_no_secret():
    done = skald("serve", "--help", DATABASE_URL="postgresql://me:hush@db/shop")
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["sing"], ["serve", "cinema"], ["serve", "order", "cinema"], ["migrate", "x"],
                                       ["audit", "order"], ["serve", ""]])
def test_bad_arguments(arguments):
    done = skald(*arguments)
    assert done.returncode == 2, done
    assert done.stderr


@pytest.mark.parametrize("name,value", [
    ("PORT", "http"), ("PORT", "0"), ("PORT", "65536"), ("PORT", "-1"), ("PORT", "80 "), ("WORKERS", "many"),
    ("WORKERS", "65"), ("WORKERS", "1.5"), ("EVENTS", "pigeon"), ("LOG_LEVEL", "loud"), ("IDLE_TIMEOUT", "5"),
    ("IDLE_TIMEOUT", "5 parsecs"), ("REQUEST_TIMEOUT", "-1s"), ("SAGA_LEASE", "0s")])
def test_bad_settings(name, value):
    done = skald("serve", **{name: value})
    assert done.returncode == 2, done
    assert name in done.stderr


def test_all_bad_settings_are_told_at_once():
    done = skald("serve", PORT="x", WORKERS="y", EVENTS="z")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("PORT", "WORKERS", "EVENTS"))


def test_migrate_where_there_is_no_database():
    url = f"postgresql://nobody:hush@127.0.0.1:{free_port()}/none"
    done = skald("migrate", DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr and "hush" not in done.stderr


def schema(cluster):
    db = cluster.connect()
    try:
        with db.cursor() as cursor:
            cursor.execute("SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns WHERE "
                           "table_schema NOT LIKE 'pg%' AND table_schema <> 'information_schema' ORDER BY 1, 2, 3")
            return cursor.fetchall()
    finally:
        db.close()


def test_migrations_side_by_side_and_again(cluster):
    url = cluster.url()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: skald("migrate", DATABASE_URL=url), range(4)))
    assert [done.returncode for done in results] == [0] * 4, [done.stderr for done in results]
    first = schema(cluster)
    assert {row[0] for row in first} >= set(SERVICES)
    assert skald("migrate", DATABASE_URL=url).returncode == 0
    assert schema(cluster) == first


def test_migration_of_one_service(cluster):
    cluster.create_database("alone")
    done = skald("migrate", "payment", PAYMENT_DATABASE_URL=cluster.url("alone"))
    assert done.returncode == 0, done.stderr
    db = cluster.connect("alone")
    with db.cursor() as cursor:
        cursor.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT LIKE 'pg%' "
                       "AND schemaname NOT IN ('information_schema', 'public')")
        assert cursor.fetchall() == [("payment",)]
    db.close()


def test_server_of_one_service_has_only_that(cluster):
    cluster.create_database("single")
    url = cluster.url("single")
    assert skald("migrate", "payment", DATABASE_URL=url).returncode == 0
    server = Server("payment", DATABASE_URL=url)
    try:
        server.start()
        made = ok(server.client.post("/payment/payment", payment()))
        assert ok(server.client.get(f"/payment/payment/{made['id']}")) == made
        assert server.client.get(f"/order/order/{uuid.uuid4()}").status == 404
        server.stop()
    finally:
        server.end()


def test_port_that_is_busy(shop):
    done = skald("serve", PORT=shop.port, DATABASE_URL=shop.database_url)
    assert done.returncode == 1, done
    assert str(shop.port) in done.stderr
    ok(shop.get("/health"))


def test_health(shop):
    assert ok(shop.get("/health")) == {"status": "ok"}
