"""Waiting for conditions instead of fixed sleeps."""

import time

PAUSE = 0.01


def wait_for(what, condition, seconds=30, pause=PAUSE):
    """Returns the first true value of condition(), or fails with the name of what is missing. pause: between two
    checks."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)
