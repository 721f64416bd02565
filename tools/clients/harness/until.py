"""Waiting for what takes its time."""

import time


def until(true, seconds=20, what="it"):
    """Calls `true` until it returns something true, and returns that; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = true()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s; last: {result!r}")
        time.sleep(0.05)
