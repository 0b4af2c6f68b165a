"""The whole shop is small, and does not grow under load."""

import pytest

from harness.load import wrk
from harness.process import memory
from harness.shop import OneShop, opened

SMALL_MB = 80
GROWTH_MB = 4
SAGAS = 10000


def order(shop, sagas):
    while sagas > 0:
        sagas -= wrk("saga.lua", f"{shop.base_url}/order/order/saga", 64, 2)["count"]


@pytest.mark.plain
def test_memory_after_many_sagas():
    with opened(OneShop()) as shop:
        order(shop, SAGAS)
        first = memory(shop.server.pids(), "Rss")
        assert first < SMALL_MB
        order(shop, SAGAS)
        assert memory(shop.server.pids(), "Rss") < first + GROWTH_MB
        shop.assert_sound()
        shop.stop()
