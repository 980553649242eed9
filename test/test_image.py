"""What image and chart ask of the server, it has: settings, health, metrics.

No container is needed: the commands are taken from the Dockerfile and run
against a server of the test's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
import urllib.request
from pathlib import Path

from exchange.host.settings import ENV_PREFIX, Settings
from test.support import PATIENCE_S, ROOT, serving
from test.test_architecture import DOORS, imports, modules, roots

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DASHBOARD = ROOT / "k8s" / "dashboards" / "exchange.json"


async def health(port: int) -> int:
    """Run the image's health check; return its exit status."""
    joined = DOCKERFILE.replace("\\\n", "")
    (command,) = re.findall(r"^HEALTHCHECK .*?CMD (.+)$", joined, re.M)
    process = await asyncio.create_subprocess_exec(
        *json.loads(command),
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "EXCHANGE_SERVER_PORT": str(port),
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


def test_image_and_chart_set_what_is_a_setting() -> None:
    templates = (ROOT / "k8s" / "templates").iterdir()
    texts = [DOCKERFILE, *(path.read_text("utf-8") for path in templates)]
    # In what names a variable; others are words of a comment.
    names = re.findall(
        rf"(?:name: |^ +){ENV_PREFIX}(\w+)", "\n".join(texts), re.M
    )
    assert names
    known = Settings.model_fields.keys()
    assert {name.lower() for name in names} <= known


async def test_a_server_that_serves_is_healthy() -> None:
    async with serving(journal=None) as server:
        assert await health(server.port) == 0
        port = server.port
    assert await health(port) != 0


async def test_the_dashboard_shows_what_the_server_measures() -> None:
    expressions = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]
        for target in panel["targets"]
    ]
    shown = set(re.findall(r"\b(exchange_\w+)\{", " ".join(expressions)))
    async with serving(journal=None) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        text = await asyncio.to_thread(read, url)
    named = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M):
        named.add(f"{name}_bucket" if kind == "histogram" else name)
    assert shown
    assert shown <= named


def read(url: str) -> str:
    """Return what a URL answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_the_image_has_all_that_the_server_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = {w.split()[0] for w in project["project"]["dependencies"]}
    (groups,) = re.findall(r"poetry export --only main,(\S+)", DOCKERFILE)
    for group in groups.split(","):
        packages |= {
            *project["tool"]["poetry"]["group"][group]["dependencies"]
        }
    there = {name.replace("-", "_") for name in packages}
    there |= {"pydantic_core", "nats", *sys.stdlib_module_names}
    there |= {"exchange", *DOORS}
    for module in (*modules("exchange"), *DOORS):
        assert roots(imports(module)) - {"pandas"} <= there
