"""`skald smoke` against healthy and broken shops."""

import pytest

from harness.server import skald
from harness.shop import OneShop, opened

NAMES = ("ORDER", "USER", "BILLING", "NOTIFICATION")


def smoke(shop, **env):
    return skald("smoke", **{f"{name}_URL": shop.base_url for name in NAMES} | env)


def test_a_shop_that_is_well(shop):
    done = smoke(shop)
    assert done.returncode == 0, done
    assert done.stdout.count("Your ") + done.stdout.count("You ") == 4, done.stdout
    assert "is rolled back" in done.stdout and done.stdout.endswith("smoke: passed\n")
    shop.assert_sound()


def test_nobody_there(shop):
    done = smoke(shop, USER_URL="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "/user/user" in done.stdout and done.stdout.endswith("smoke: failed\n")


def test_another_answer_than_promised(shop):
    done = smoke(shop, BILLING_URL=f"{shop.base_url}/nowhere")
    assert done.returncode == 1 and "404" in done.stdout


def test_notifications_that_do_not_come():
    with opened(OneShop(EVENTS="off")) as shop:
        done = smoke(shop, SMOKE_TIMEOUT="2s")
        assert done.returncode == 1
        assert "too few" in done.stdout and "is rolled back" in done.stdout
        shop.stop()


@pytest.mark.parametrize("command", ["smoke", "relay", "audit"])
def test_arguments_that_nobody_takes(command):
    done = skald(command, "now")
    assert done.returncode == 2 and f"{command} takes no arguments" in done.stderr
