"""What several tests of the gateway need."""

import pytest

from test.support import Floor


@pytest.fixture
def floor() -> Floor:
    """Return a gateway that lists BOND, and has no socket."""
    return Floor()
