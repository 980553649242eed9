"""The types of the page, which node and npm check."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from exchange.doors.http import PAGE
from test.support import ROOT

CHECK = ROOT / ".ci" / "types"
# A field of a message, or a value of one, and how it may be misspelt.
MISSPELT = [
    ("board.js", "message.last, message.ts", "message.lst, message.ts"),
    ("feed.js", 'what: "candles"', 'what: "candels"'),
    ("exchange.js", "cancel_on_disconnect:", "cancel_on_disconect:"),
    ("orders.js", "order.cum_qty", "order.cumqty"),
    ("words.js", "reply.order_id", "reply.orderid"),
    ("wall.js", "close_left_ms:", "close_left:"),
]


def test_the_page_agrees_with_the_protocol(tmp_path: Path) -> None:
    """A message's field that no message has is found, wherever it is read."""
    page = tmp_path / "page"
    shutil.copytree(PAGE, page)
    checked = subprocess.run([CHECK, page], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, ""), checked
    for name, right, wrong in MISSPELT:
        text = (page / name).read_text()
        assert right in text
        (page / name).write_text(text.replace(right, wrong))
    checked = subprocess.run([CHECK, page], capture_output=True, text=True)
    assert checked.returncode != 0
    found = {line.partition("(")[0] for line in checked.stdout.splitlines()}
    assert {str(page / name) for name, *_ in MISSPELT} <= found


def test_without_node_it_says_that_it_checks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    checked = subprocess.run([CHECK], capture_output=True, text=True)
    assert checked.returncode == 0, checked
    assert checked.stdout == (
        "types: no node or no npm here; the types of the page are left out\n"
    )
