"""Both doors, and a folder for the market file."""

from __future__ import annotations

from typing import cast

import pytest

from test.doors.challenge.bots import DOORS, Door


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    """Run a test at each of the doors."""
    return cast(Door, request.param)
