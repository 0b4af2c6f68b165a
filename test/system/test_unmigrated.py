"""`skald serve` on a database that lacks what this version needs: never migrated, or restored from an older dump."""

import contextlib

from harness.check import ok, problem
from harness.goods import payment, person, saga
from harness.server import SLOWER
from harness.shop import OneShop
from harness.wait import wait_for

HEAL_SECONDS = 15 * SLOWER
MISSING = "has not been migrated for this version"


class UnmigratedShop(OneShop):
    def migrate(self):
        """Only when the test says so."""

    def start(self):
        self.server.spawn()
        wait_for("a response", self.is_alive, 30 * SLOWER)

    def is_alive(self):
        try:
            return self.get("/livez").status == 200
        except OSError:
            return False

    def drop_database(self):
        with contextlib.closing(self.cluster.connect("postgres")) as db, db.cursor() as cursor:
            cursor.execute("DROP DATABASE skald WITH (FORCE)")

    def is_ready(self):
        return self.get("/readyz").status == 200

    def wait_unready(self, detail):
        wait_for(f"'{detail}'", lambda: detail in self.get("/readyz").body.decode(), HEAL_SECONDS)
        assert detail in problem(self.get("/readyz"), 503)["detail"]


@contextlib.contextmanager
def open_shop(**settings):
    shop = UnmigratedShop(WORKERS=1, **settings)
    try:
        yield shop.open()
    finally:
        shop.close()


def migrate(shop):
    done = shop.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr


def refused(shop, method, path, body=None):
    """The problem says that nothing was done, and what to do."""
    found = problem(shop.request(method, path, body), 503)
    assert found["type"] == "urn:skald:problem:unavailable", found
    return found["detail"]


def test_unmigrated_database_is_not_ready_until_it_is_migrated():
    with open_shop() as shop:
        shop.wait_unready("the database of order has not been migrated for this version (service 1 is missing): "
                          "run skald migrate")
        for method, path, body in (("POST", "/user/user", person()), ("POST", "/payment/payment", payment()),
                                   ("POST", "/order/order/saga", saga()), ("GET", "/order/saga", None)):
            assert "run skald migrate" in refused(shop, method, path, body)
        assert shop.get("/order/nothing").status == 404
        said = shop.server.text()
        assert [line for line in said.splitlines() if '"ERROR"' in line and MISSING not in line] == []
        for service in ("order", "user", "notification"):
            assert said.count(f"the database of {service} {MISSING}") == 1 + said.count(f": the database of {service} {MISSING}")
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert ok(shop.post("/order/order/saga", saga()))[0]["status"] == "SUCCESS"
        shop.assert_sound()
        shop.stop()


def test_database_that_is_not_there_becomes_ready_when_it_is_made():
    with open_shop() as shop:
        shop.drop_database()
        wait_for("unreadiness", lambda: not shop.is_ready(), HEAL_SECONDS)
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        shop.stop()


def test_one_migration_that_is_missing_is_enough():
    with open_shop() as shop:
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        shop.stop()
        shop.execute("order", "DELETE FROM public.skald_migration WHERE service = 'user' AND module IN ('saga', 'module 0') "
                              "AND version = 2")
        shop.start()
        shop.wait_unready("the database of user has not been migrated for this version (saga 2 is missing)")
        assert ok(shop.post("/payment/payment", payment()))  # its service lacks nothing
        assert "run skald migrate" in refused(shop, "POST", "/user/user", person())
        shop.execute("order", "INSERT INTO public.skald_migration (service, module, version) VALUES ('user', 'saga', 2)")
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        shop.stop()


def test_database_of_a_later_version_is_ready():
    with open_shop() as shop:
        migrate(shop)
        shop.execute("order", "INSERT INTO public.skald_migration (service, module, version) "
                              "SELECT DISTINCT service, module, 1000 FROM public.skald_migration")
        shop.execute("order", "INSERT INTO public.skald_migration VALUES ('payment', 'ledger', 1)")
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert MISSING not in shop.server.text().split("has been migrated")[-1]
        shop.stop()


def test_older_dump_restored_beneath_a_running_shop():
    with open_shop() as shop:
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert ok(shop.post("/payment/payment", payment()))
        shop.execute("payment", "DROP SCHEMA payment CASCADE")
        shop.execute("payment", "DELETE FROM public.skald_migration WHERE service = 'payment'")
        found = problem(shop.post("/payment/payment", payment()), 503)
        assert found["type"] == "urn:skald:problem:unavailable"
        shop.wait_unready("the database of payment has not been migrated for this version (service 1 is missing)")
        assert "run skald migrate" in refused(shop, "POST", "/payment/payment", payment())
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert ok(shop.post("/payment/payment", payment()))
        shop.stop()


def test_role_that_may_not_read_the_versions_is_served():
    """It cannot be checked then, which is said."""
    with open_shop() as shop:
        migrate(shop)
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        shop.stop()
        shop.execute("payment", "CREATE ROLE clerk LOGIN")
        shop.execute("payment", "GRANT USAGE ON SCHEMA payment TO clerk")
        shop.execute("payment", "GRANT ALL ON ALL TABLES IN SCHEMA payment TO clerk")
        url = shop.cluster.url().replace("skald@", "clerk@")
        shop.servers["all"] = type(shop.server)("payment", port=shop.port, DATABASE_URL=url, WORKERS=1)
        shop.start()
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert "payment may not read public.skald_migration" in shop.server.text()
        assert ok(shop.post("/payment/payment", payment()))
        shop.stop()


def test_request_before_the_first_check_is_refused():
    """A process that cannot ask its database yet begins nothing in it."""
    with open_shop() as shop:
        migrate(shop)
        shop.stop()
        with shop.cluster.frozen():
            shop.start()
            pids = shop.server.pids()
            for path, body in (("/order/order/saga", saga()), ("/user/user", person())):
                assert "is not known yet" in refused(shop, "POST", path, body)
            assert "cannot be reached" in problem(shop.get("/readyz"), 503)["detail"]
            assert shop.server.pids() == pids
        wait_for("readiness", shop.is_ready, HEAL_SECONDS)
        assert ok(shop.post("/order/order/saga", saga()))[0]["status"] == "SUCCESS"
        shop.stop()
