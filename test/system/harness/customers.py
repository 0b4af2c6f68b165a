"""Customers who order, register, pay and read continuously, and never retry."""

import concurrent.futures
import contextlib
import itertools
import threading

from .check import ok
from .goods import line, new_account, new_user, saga, set_stock, stock, wallet

PLENTY = 1000000
FEWEST = 20  # requests that prove something


class Customers:
    def __init__(self, shop):
        self.shop, self.ended = shop, threading.Event()
        self.account, self.item = new_account(shop, PLENTY), set_stock(shop, PLENTY)
        self.user = new_user(shop)
        self.orders, self.accepted, self.refills, self.failed, self.done = [], [], [], [], itertools.count()
        self.count = 0

    def order(self):
        answer = self.shop.post("/order/order/saga", saga([line(self.item, 1, 1)], account=self.account))
        if answer.status in (200, 202):
            (self.orders if answer.status == 200 else self.accepted).append(answer)
        return answer

    def order_and_leave(self):
        answer = self.shop.post("/order/order/saga", saga([line(self.item, 1, 1)], account=self.account),
                                Prefer="respond-async")
        if answer.status == 202:
            self.accepted.append(answer)
        return answer

    def register(self):
        return self.shop.post("/user/user", {"name": "Maksim", "email": "maksim@example.org"})

    def refill(self):
        answer = self.shop.put(f"/billing/billing/refill/{self.user['billingId']}/1")
        if answer.status == 200:
            self.refills.append(answer)
        return answer

    def look(self):
        return self.shop.get(f"/notification/notification/{self.user['id']}?page_size=5")

    def work(self):
        actions = (self.order, self.order_and_leave, self.register, self.refill, self.look)
        for action in itertools.cycle(actions):
            if self.ended.is_set():
                return
            try:
                answer = action()
            except OSError as error:
                self.failed.append((action.__name__, error))
                continue
            self.count = next(self.done) + 1
            if answer.status not in (200, 202):
                self.failed.append((action.__name__, answer))

    @contextlib.contextmanager
    def going(self, clients):
        """Customers come and go until the block ends."""
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            working = [pool.submit(self.work) for _ in range(clients)]
            try:
                yield self
            finally:
                self.ended.set()
            for one in working:
                one.result()
        print(f"\n{self.count} requests, {len(self.orders)} orders answered, {len(self.accepted)} accepted, "
              f"{len(self.failed)} failed")

    @contextlib.contextmanager
    def served(self, what):
        """Checks that enough customers came, and that all were served."""
        before = self.count
        yield
        print(f"\n{what}: {self.count - before} requests meanwhile", end="")
        assert self.count - before > FEWEST or self.failed, "too few requests to prove anything"
        assert not self.failed, (what, self.failed[:5])

    def check(self):
        """Checks that everyone was served exactly once and that the accounts agree."""
        assert not self.failed, self.failed[:5]
        assert all(ok(answer)[0]["status"] == "SUCCESS" for answer in self.orders)
        self.shop.settle()
        for answer in self.accepted:
            assert ok(self.shop.get(answer.headers["location"]))["state"] == "SUCCEEDED"
        count = len(self.orders) + len(self.accepted)
        assert wallet(self.shop, self.account) == PLENTY - count
        assert stock(self.shop, self.item) == (PLENTY - count, count)
        assert wallet(self.shop, self.user["billingId"]) == len(self.refills)
        self.shop.assert_sound()
