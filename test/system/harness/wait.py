"""Waiting for conditions, never for a time."""

import time

PAUSE = 0.01


def wait_for(what, condition, seconds=30, pause=PAUSE):
    """Returns the first true value of condition(), or fails, naming what did not come. pause: between two looks."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)
