"""kill -9 at random moments under load, repeatedly; at the end every guarantee holds and the audit is clean. SEED
repeats a run's choices (though not the scheduler's)."""

import concurrent.futures
import os
import random
import threading
import uuid
from decimal import Decimal

import pytest

from harness.check import ok
from harness.goods import future, line, new_account, new_user, past, saga, set_slot, set_stock, wallet
from harness.server import SLOWER
from harness.shop import SERVICES, OneShop, SevenShops, opened
from harness.wait import wait_for

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
THREADS = 8
WALLET = 3000
ENOUGH = 10**6
AWAY_SECONDS = 0.1


class Deed:
    """A request with its own idempotency key, and its response if there was one."""

    def __init__(self, method, path, body, prefer=None):
        self.method, self.path, self.body = method, path, body
        self.key = str(uuid.uuid4())
        self.headers = {"Prefer": prefer} if prefer else {}
        self.answer = None

    def send(self, shop, **headers):
        return shop.request(self.method, self.path, self.body, key=self.key, timeout=60, **headers)

    def ask(self, shop):
        """Only a final response counts; a 409 or 503 means that there is no outcome yet."""
        try:
            answer = self.send(shop, **self.headers)
        except OSError:
            return
        if answer.status in (200, 202, 424):
            self.answer = answer
        else:
            assert answer.status in (409, 503, 504), answer


class Load:
    """Customers who order, pay and refill, with scarce stock, slots and money."""

    def __init__(self, shop, seed):
        self.shop, self.random = shop, random.Random(seed)
        self.users = [new_user(shop) for _ in range(4)]
        self.poor = new_user(shop)["billingId"]
        self.rich = new_account(shop, ENOUGH)
        for user in self.users:
            ok(shop.put(f"/billing/billing/refill/{user['billingId']}/{WALLET}"))
        self.scarce, self.plenty = set_stock(shop, 150), set_stock(shop, ENOUGH)
        self.full, self.roomy = set_slot(shop, 100), set_slot(shop, ENOUGH)
        self.deeds, self.lock, self.ended = [], threading.Lock(), threading.Event()

    def wallet(self):
        return self.random.choice(self.users)["billingId"]

    def order(self):
        pick = self.random.choice
        contents = [line(pick([self.scarce, self.plenty, self.plenty, "made to order"]), pick([1, 2]), pick([1, 2.5, 9.99]))
                    for _ in range(pick([1, 1, 2, 3]))]
        when = pick([past(), self.full, self.roomy, self.roomy, future(), future()])
        account = pick([None, None, self.rich, self.poor, self.wallet(), self.wallet()])
        return Deed("POST", "/order/order/saga", saga(contents, when, account), pick([None, None, "respond-async"]))

    def next(self):
        with self.lock:
            kind = self.random.random()
            if kind < 0.7:
                deed = self.order()
            elif kind < 0.85:
                deed = Deed("PUT", f"/billing/billing/refill/{self.wallet()}/{self.random.choice(['1', '0.33', '20'])}", None)
            else:
                deed = Deed("PUT", f"/billing/billing/{self.wallet()}/{self.random.choice(['1', '0.33', '2000'])}", None)
            self.deeds.append(deed)
            return deed

    def work(self):
        while not self.ended.is_set():
            deed = self.next()
            deed.ask(self.shop)
            if deed.answer is None:
                self.ended.wait(AWAY_SECONDS)  # the shop is down; customers do not retry in a busy loop

    def answered(self):
        return sum(deed.answer is not None for deed in list(self.deeds))

    def run(self, crashes, crash):
        """crash(shop, random) kills and restarts; between two crashes the load makes progress."""
        chance = random.Random(self.random.random())
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            workers = [pool.submit(self.work) for _ in range(THREADS)]
            try:
                for i in range(crashes):
                    wanted = self.answered() + chance.randrange(1, 80)
                    wait_for(f"answers before crash {i}", lambda w=wanted: self.answered() >= w or self.failed(workers),
                             60 * SLOWER)
                    crash(self.shop, chance)
            finally:
                self.ended.set()
            for worker in workers:
                worker.result()

    @staticmethod
    def failed(workers):
        return any(worker.done() for worker in workers)


def assert_kept(load):
    """Checks that every response still holds, and that requests without a response succeed when retried."""
    shop = load.shop
    for deed in load.deeds:
        again = deed.send(shop)
        assert again.status in (200, 424), again
        if deed.answer is None:
            deed.answer = again
        elif deed.answer.status == 202:
            assert order_of(again) == deed.answer.headers["location"].rsplit("/", 1)[1]
            deed.answer = again
        else:
            assert (again.status, again.body) == (deed.answer.status, deed.answer.body)
            assert again.headers["idempotent-replayed"] == "true"


def order_of(answer):
    return answer.json[0]["id"] if answer.status == 200 else answer.json["orderId"]


def assert_counts(load):
    """Checks that the shop's state agrees with the responses."""
    shop, spent, moved = load.shop, {}, {}
    reserved, placed = {load.scarce: 0, load.plenty: 0}, {load.full: 0, load.roomy: 0}
    statuses = dict(shop.query("order", 'SELECT id::text, status FROM "order".orders'))
    orders = [deed for deed in load.deeds if deed.path.startswith("/order")]
    for deed in orders:
        success = deed.answer.status == 200
        assert statuses.pop(order_of(deed.answer)) == ("SUCCESS" if success else "CANCELED")
        if not success:
            continue
        for one in deed.body["contents"]:
            if one["item"] in reserved:
                reserved[one["item"]] += one["amount"]
        if deed.body["timeDelivery"] in placed:
            placed[deed.body["timeDelivery"]] += 1
        account = deed.body.get("billingId")
        spent[account] = spent.get(account, 0) + sum(one["amount"] * Decimal(str(one["price"]))
                                                     for one in deed.body["contents"])
    assert statuses == {}, "orders that nobody was told of"
    for deed in load.deeds:
        if deed.path.startswith("/billing") and deed.answer.json["status"]:
            *_, account, total = deed.path.split("/")
            moved[account] = moved.get(account, 0) + Decimal(total) * (1 if "/refill/" in deed.path else -1)
    for user in load.users:
        account = user["billingId"]
        assert wallet(shop, account) == WALLET + moved.get(account, 0) - spent.get(account, 0)
    assert wallet(shop, load.rich) == ENOUGH - spent.get(load.rich, 0)
    assert wallet(shop, load.poor) == 0
    for item, total in ((load.scarce, 150), (load.plenty, ENOUGH)):
        record = ok(shop.get(f"/warehouse/stock/{item}"))
        assert (record["available"], record["reserved"]) == (total - reserved[item], reserved[item])
    for when, count in placed.items():
        assert ok(shop.get(f"/delivery/slot/{when}"))["taken"] == count


def crash_test(shop, crashes, crash):
    print(f"SEED={SEED}")
    load = Load(shop, SEED)
    load.run(crashes, crash)
    assert load.answered() < len(load.deeds), "no crash hit anything"
    shop.settle()
    shop.assert_sound()
    assert_kept(load)
    shop.settle()
    assert_counts(load)
    shop.assert_sound()
    outcomes = [deed.answer.status for deed in load.deeds if deed.path.startswith("/order")]
    assert outcomes.count(200) > 20 and outcomes.count(424) > 20, "the load was no mix"


def kill_all(shop, chance):
    shop.kill()
    shop.start()


def kill_some(shop, chance):
    """Kills one to three random services, in random order."""
    victims = chance.sample(SERVICES, chance.choice([1, 1, 2, 3]))
    for name in victims:
        shop.servers[name].kill()
    for name in victims:
        shop.servers[name].start()


def kill_database(shop, chance):
    shop.forget_connections()
    shop.cluster.kill()
    shop.restart_database()
    wait_for("health", lambda: shop.server.is_healthy(), 30)


@pytest.mark.timed
@pytest.mark.parametrize("workers", [1, 3])
def test_all_in_one(workers):
    with opened(OneShop(WORKERS=workers)) as shop:
        crash_test(shop, 20 if workers == 1 else 6, kill_all)
        shop.stop()


@pytest.mark.timed
def test_seven_processes():
    with opened(SevenShops()) as shops:
        crash_test(shops, 20, kill_some)
        shops.stop()


@pytest.mark.timed
def test_database():
    with opened(OneShop()) as shop:
        crash_test(shop, 5, kill_database)
        shop.stop()
