"""What holds for every test."""

import os

import pytest

from test.support import NO_KEYS


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith("EXCHANGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EXCHANGE_SERVER_JOURNAL", "off")
    monkeypatch.setenv("EXCHANGE_SERVER_KEYS", NO_KEYS)
