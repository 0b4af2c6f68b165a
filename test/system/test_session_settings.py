"""What an administrator sets for a role or a database, or somebody's environment holds, changes nothing for the shop."""

import contextlib

import pytest
from psycopg2 import sql

from harness.check import ok
from harness.goods import buy, line, new_user, own_time, payment, refill, saga, wallet
from harness.server import SLOWER
from harness.shop import OneShop, opened
from harness.wait import wait_for

HEAL_SECONDS = 20 * SLOWER
CONNECTIONS = 2
# Name, a value that does harm, the value in a session of the pool.
SETTINGS = [
    ("datestyle", "German, DMY", "ISO, MDY"),
    ("intervalstyle", "sql_standard", "postgres"),
    ("timezone", "America/St_Johns", "UTC"),
    ("bytea_output", "escape", "hex"),
    ("extra_float_digits", "-15", "3"),
    ("standard_conforming_strings", "off", "on"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("lc_monetary", "C.utf8", "C"),
    ("lc_numeric", "C.utf8", "C"),
    ("lc_time", "C.utf8", "C"),
    ("search_path", "nowhere", '"$user", public'),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_deferrable", "on", "off"),
    ("default_transaction_read_only", "on", "off"),
    ("statement_timeout", "2s", "10s"),
    ("lock_timeout", "1ms", "3s"),
    ("idle_in_transaction_session_timeout", "3s", "0"),
    ("idle_session_timeout", "3s", "0"),
    ("row_security", "off", "on"),
    ("synchronous_commit", "off", "on"),
    ("array_nulls", "off", "on"),
    ("xmloption", "document", "content"),
    ("xmlbinary", "hex", "base64"),
    ("quote_all_identifiers", "on", "off"),
    ("transform_null_equals", "on", "off"),
    ("jit", "on", "off"),
    ("plan_cache_mode", "force_custom_plan", "auto"),
    ("client_min_messages", "error", "warning"),
    ("session_replication_role", "replica", "origin"),
]
WANTED = {name: value for name, _, value in SETTINGS}
# Notes what the session of a payment is set to, whatever session_replication_role is.
SPY = """CREATE TABLE public.seen (name text, value text);
    CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO public.seen SELECT n, current_setting(n) FROM unnest(string_to_array('%s', ' ')) n; RETURN NEW;
    END $$;
    CREATE TRIGGER spy AFTER INSERT ON payment.payments FOR EACH ROW EXECUTE FUNCTION public.spy();
    ALTER TABLE payment.payments ENABLE ALWAYS TRIGGER spy""" % " ".join(WANTED)


class ShopOfAKeeper(OneShop):
    """Its role is not the one that the tests use."""

    role = "keeper"
    rights = "SUPERUSER"

    def prepare(self):
        with contextlib.closing(self.cluster.connect()) as db, db.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {self.role} LOGIN {self.rights}")
        super().prepare()

    def settings(self):
        url = self.cluster.url().replace("skald@", f"{self.role}@")
        return super().settings() | {"DATABASE_URL": url, "WORKERS": 1, "DB_CONNECTIONS": CONNECTIONS}

    def set(self, target, name, value):
        self.statement(sql.SQL("ALTER {} SET {} = {}").format(
            sql.SQL(target), sql.Identifier(name),
            sql.SQL(value) if name == "search_path" else sql.Literal(value)))

    def reset(self, target):
        self.statement(sql.SQL("ALTER {} RESET ALL").format(sql.SQL(target)))

    def statement(self, statement):
        with self.connection("order").cursor() as cursor:
            cursor.execute(statement)

    def reconnect(self):
        """All of the shop's sessions are new ones: those of the pool, and the one that reads the slot."""
        old = [row[0] for row in self.query("order", "SELECT pid FROM pg_stat_activity WHERE usename = %s", self.role)]
        self.query("order", "SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", old)
        fresh = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND pid <> ALL (%s)"
        wait_for("new sessions", lambda: self.value("order", fresh, self.role, old) == CONNECTIONS + 1, HEAL_SECONDS)
        wait_for("health", self.server.is_healthy, HEAL_SECONDS)

    def seen(self):
        """The settings of a session that stores a payment."""
        self.execute("payment", "DELETE FROM public.seen")
        ok(self.post("/payment/payment", payment()))
        return dict(self.query("payment", "SELECT name, value FROM public.seen"))


def live(shop):
    """Everything that a setting could break."""
    slot = own_time()
    assert ok(shop.put(f"/delivery/slot/{slot}", {"capacity": 3}))
    user = new_user(shop)
    assert refill(shop, user["billingId"], 20)
    made = ok(shop.post("/order/order/saga", saga([line(price=5.25)], slot, user["billingId"])))
    assert made[2]["timeDelivery"] == slot.removesuffix(":00")
    assert ok(shop.get(f"/delivery/delivery/{made[2]['id']}")) == made[2]
    assert ok(shop.get(f"/order/saga/{made[0]['id']}"))["state"] == "SUCCEEDED"
    assert not buy(shop, user["billingId"], 1000)
    body, key = payment(), f"key-{slot}"
    first, again = (shop.post("/payment/payment", body, key=key) for _ in range(2))
    assert first.status == 200 and first.body == again.body
    assert str(wallet(shop, user["billingId"])) == "14.75"
    wait_for("four notifications", lambda: len(ok(shop.get(f"/notification/notification/{user['id']}"))) == 4, HEAL_SECONDS)
    done = shop.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    shop.assert_sound()


@pytest.fixture(scope="module")
def shop():
    with opened(ShopOfAKeeper()) as one:
        one.execute("payment", SPY)
        yield one
        one.stop()


@pytest.mark.parametrize("target", ["ROLE keeper", "DATABASE skald", "ROLE keeper IN DATABASE skald"])
def test_settings_of_a_role_or_database_change_nothing(shop, target):
    try:
        for name, value, _ in SETTINGS:
            shop.set(target, name, value)
        shop.reconnect()
        assert shop.seen() == WANTED
        live(shop)
    finally:
        shop.reset(target)


def test_settings_of_the_environment_change_nothing():
    options = " ".join("-c {}={}".format(name, value.replace(" ", "\\ ")) for name, value, _ in SETTINGS
                       if name != "client_encoding")
    with opened(ShopOfAKeeper(PGOPTIONS=options, PGDATESTYLE="German", PGTZ="America/St_Johns", PGCLIENTENCODING="LATIN1",
                              PGAPPNAME="other")) as shop:
        shop.execute("payment", SPY)
        assert shop.seen() == WANTED
        live(shop)
        shop.stop()


def test_stricter_durability_is_kept(shop):
    try:
        shop.set("ROLE keeper", "synchronous_commit", "remote_apply")
        shop.reconnect()
        assert shop.seen()["synchronous_commit"] == "remote_apply"
    finally:
        shop.reset("ROLE keeper")


def test_server_that_is_read_only_as_a_whole_is_not_written_to(shop):
    """As a managed server whose disk is full; it must heal by itself behind that."""
    try:
        shop.execute("order", "ALTER SYSTEM SET default_transaction_read_only = on")
        shop.execute("order", "SELECT pg_reload_conf()")
        wait_for("a refusal", lambda: shop.post("/payment/payment", payment()).status == 503, HEAL_SECONDS)
    finally:
        shop.execute("order", "SET default_transaction_read_only = off")
        shop.execute("order", "ALTER SYSTEM RESET default_transaction_read_only")
        shop.execute("order", "SELECT pg_reload_conf()")
    wait_for("an acceptance", lambda: shop.post("/payment/payment", payment()).status == 200, HEAL_SECONDS)


class ShopOfAClerk(ShopOfAKeeper):
    role = "clerk"
    rights = "REPLICATION"

    def prepare(self):
        super().prepare()
        with contextlib.closing(self.cluster.connect()) as db, db.cursor() as cursor:
            cursor.execute("GRANT CREATE ON DATABASE skald TO clerk; GRANT ALL ON SCHEMA public TO clerk")


def test_triggers_that_are_off_keep_the_shop_from_working():
    """Ended sagas could change. An ordinary role may not turn them on, so it says what is wrong."""
    with opened(ShopOfAClerk()) as shop:
        ok(shop.post("/order/order/saga", saga()))
        shop.settle()
        shop.set("ROLE clerk", "session_replication_role", "replica")
        shop.query("order", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'clerk'")
        wait_for("the message", lambda: 'permission denied to set parameter \\"session_replication_role\\"'
                 in shop.server.text(), HEAL_SECONDS)
        wait_for("unreadiness", lambda: shop.get("/readyz").status == 503, HEAL_SECONDS)
        shop.reset("ROLE clerk")
        wait_for("health", shop.server.is_healthy, HEAL_SECONDS)
        ok(shop.post("/order/order/saga", saga()))
        shop.stop()
