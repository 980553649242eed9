"""Helm, for `check_chart.py`: lint a chart, and render it with some values.

The command is used where there is one. Elsewhere the library in the package
helm-sdkpy does it, which can install but not only render: it installs into
`Cluster`, which takes everything and keeps nothing.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import yaml

RELEASE, NAMESPACE = "exchange", "markets"
KUBERNETES = "1.34.0"  # what the templates are told
# What a cluster must know of, to be asked for it: by API, plural and kind.
RESOURCES = {
    "v1": {
        "configmaps": "ConfigMap",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {"statefulsets": "StatefulSet"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor"},
    "networking.k8s.io/v1": {
        "ingresses": "Ingress",
        "networkpolicies": "NetworkPolicy",
    },
}


class HelmError(Exception):
    """Helm refuses; the text says why."""


class Helm(Protocol):
    """What both kinds of Helm do."""

    def lint(self, chart: Path) -> None:
        """Raise HelmError if a chart has faults."""

    def render(self, chart: Path, values: Path) -> str:
        """Return the manifests of a chart; raises HelmError."""


def find_helm() -> Helm:
    """Return the Helm that is here."""
    return HelmCommand() if shutil.which("helm") else HelmLibrary()


class HelmCommand:
    """The command `helm`."""

    def lint(self, chart: Path) -> None:
        """Raise HelmError if a chart has faults."""
        self._run("lint", "--strict", str(chart))

    def render(self, chart: Path, values: Path) -> str:
        """Return the manifests of a chart; raises HelmError."""
        return self._run(
            *("template", RELEASE, str(chart)),
            *("--namespace", NAMESPACE, "--values", str(values)),
        )

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["helm", *arguments], capture_output=True, text=True
        )
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout


class HelmLibrary:
    """The library that the package helm-sdkpy carries."""

    WARNING = 2  # of a lint message; 1 informs, 3 is an error

    def __init__(self) -> None:
        import helm_sdkpy

        self._sdk = helm_sdkpy
        self._cluster = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
        Thread(target=self._cluster.serve_forever, daemon=True).start()
        self._config = helm_sdkpy.Configuration(
            NAMESPACE, kubeconfig(self._cluster.server_port)
        )

    def lint(self, chart: Path) -> None:
        """Raise HelmError if a chart has faults."""
        lint = self._sdk.Lint(self._config)
        found = asyncio.run(lint.run(str(chart)))["Messages"]
        faulty = [m["Path"] for m in found if m["Severity"] >= self.WARNING]
        if faulty:  # the library tells no more
            raise HelmError(f"lint: {', '.join(faulty)}")

    def render(self, chart: Path, values: Path) -> str:
        """Return the manifests of a chart; raises HelmError."""
        install = self._sdk.Install(self._config)
        try:
            release = asyncio.run(
                install.run(
                    RELEASE,
                    str(chart),
                    yaml.safe_load(values.read_text("utf-8")),
                    wait=False,
                )
            )
        except self._sdk.HelmError as error:
            raise HelmError(str(error)) from None
        return str(release["manifest"])


def kubeconfig(port: int) -> str:
    """Return how to reach a cluster on this machine."""
    here = "here"
    text: str = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": here,
                    "cluster": {"server": f"http://127.0.0.1:{port}"},
                }
            ],
            "users": [{"name": here, "user": {}}],
            "contexts": [
                {"name": here, "context": {"cluster": here, "user": here}}
            ],
            "current-context": here,
        }
    )
    return text


class Cluster(BaseHTTPRequestHandler):
    """The API server of a cluster where nothing is and all is welcome."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say what there can be, and that there is none of it."""
        path = self.path.partition("?")[0]
        api = path.removeprefix("/apis/").removeprefix("/api/")
        if path == "/version":
            self._answer({"gitVersion": f"v{KUBERNETES}"})
        elif path == "/api":
            self._answer({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            self._answer({"kind": "APIGroupList", "groups": groups()})
        elif api in RESOURCES:
            self._answer(resources(api))
        elif path.endswith("/secrets"):  # of earlier releases
            self._answer({"kind": "SecretList", "apiVersion": "v1"})
        else:
            missing = {"kind": "Status", "status": "Failure", "code": 404}
            self._answer({**missing, "reason": "NotFound"}, 404)

    def do_POST(self) -> None:
        """Take an object."""
        self._echo(201)

    def do_PUT(self) -> None:
        """Take an object instead of another."""
        self._echo(200)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _echo(self, status: int) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"] == "application/json":
            self._answer(json.loads(body), status)
        else:  # in protobuf: Helm's note of the release
            self._answer({"kind": "Secret", "apiVersion": "v1"}, status)

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def groups() -> list[dict[str, Any]]:
    """Return the groups of APIs, as a cluster lists them."""
    found = []
    for api in RESOURCES:
        group, _, version = api.rpartition("/")
        if group:
            versions = [{"groupVersion": api, "version": version}]
            found.append({"name": group, "versions": versions})
    return found


def resources(api: str) -> dict[str, Any]:
    """Return the resources of one API, as a cluster lists them."""
    return {
        "kind": "APIResourceList",
        "groupVersion": api,
        "resources": [
            {
                "name": plural,
                "kind": kind,
                "namespaced": True,
                "verbs": ["create", "get"],
            }
            for plural, kind in RESOURCES[api].items()
        ],
    }
