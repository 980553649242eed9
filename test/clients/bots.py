"""How each library is pointed at an exchange; documented in docs/DIALECT.md.

None of them is changed. They are in the Poetry group `clients`, and run by
``make clients``.
"""

from __future__ import annotations

import re
from typing import Any

from test.support import ROOT

PAGE = (ROOT / "docs" / "DIALECT.md").read_text()
DOCUMENTED_HOST = "localhost:8765"
# By the name that the page gives before each program.
PROGRAMS = dict(
    re.findall(r"^### (.+?)\n.*?```python\n(.*?)^```$", PAGE, re.M | re.S)
)


def options(host: str, user: str, secret: str = "S") -> dict[str, Any]:
    """Return what ccxt is given."""
    return {
        "apiKey": user,
        "secret": secret,
        "enableRateLimit": False,
        "urls": {
            "api": {
                "public": f"http://{host}/api/v3",
                "private": f"http://{host}/api/v3",
                "sapi": f"http://{host}/sapi/v1",
                "ws": {
                    "spot": f"ws://{host}/ws",
                    "ws-api": {"spot": f"ws://{host}/ws-api/v3"},
                },
            }
        },
        "options": {
            "fetchMarkets": {"types": ["spot"]},
            "fetchMargins": False,
        },
    }
