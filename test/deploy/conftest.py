"""Fixtures of the tests of install.sh and delete.sh."""

import pytest
import stubs


@pytest.fixture(params=["sh", "busybox"])
def machine(request, tmp_path):
    command = stubs.shells().get(request.param)
    if not command:
        pytest.skip(f"{request.param} is not installed")
    return stubs.Machine(tmp_path, command)
