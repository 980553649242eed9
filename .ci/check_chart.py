"""Check the Helm chart in k8s/: run it with `make chart`.

Every set of values in k8s/ci/ is rendered. The manifests must

- match the schemas of the oldest and of the newest Kubernetes;
- meet the pod security standard "restricted", and rules of our own;
- be consistent: names, selectors, volumes, config maps, services;
- give the server valid settings, with the instruments of the values.

Every set in k8s/ci/refused/ must be refused, with a message that contains the
text of its first line.

Exit status: 0, or 1 if anything is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import helm
import kubernetes_validate
import yaml

Manifest: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parent.parent
CHART = ROOT / "k8s"
OLDEST = "1.25"  # of kubeVersion in Chart.yaml
NO_SCHEMA = {"ServiceMonitor"}  # of the Prometheus operator
NAME_MAX = 63  # of a DNS label
STATEFUL_SET_MAX = 52  # its pods have a label with 11 characters more
# Volumes that "restricted" allows.
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
BOTH = ["https", "http"]  # with a proxy that encrypts, or without one
LISTS = {
    "origins": "EXCHANGE_SERVER_ORIGINS",
    "proxies": "EXCHANGE_SERVER_PROXIES",
}
LIMITS = {
    "connections": "EXCHANGE_SERVER_MAX_CONNECTIONS",
    "perAddress": "EXCHANGE_SERVER_MAX_PER_ADDRESS",
    "perAccount": "EXCHANGE_SERVER_MAX_PER_ACCOUNT",
}
# Prints the market of the settings in the environment.
SETTINGS = """
from exchange.host.market_file import load_market
from exchange.host.settings import load_settings
settings = load_settings()
settings.rules(is_guarded=True)
print(load_market(settings.market).model_dump_json())
"""


def main() -> int:
    """Check everything; return the exit status."""
    problems = []
    accepted = sorted(CHART.glob("ci/*.yaml"))
    for values in accepted:
        for problem in judge(values):
            problems.append(f"{values.relative_to(ROOT)}: {problem}")
    for values in sorted(CHART.glob("ci/refused/*.yaml")):
        for problem in is_refused(values):
            problems.append(f"{values.relative_to(ROOT)}: {problem}")
    if not accepted:
        problems.append("k8s/ci: no values to render")
    for problem in problems:
        print(f"chart: {problem}", file=sys.stderr)
    return 1 if problems else 0


def is_refused(values: Path) -> Iterator[str]:
    """Yield the faults in the refusal of some values."""
    reason = values.read_text("utf-8").splitlines()[0].removeprefix("# ")
    try:
        helm.render(CHART, values)
    except helm.HelmError as error:
        if reason not in str(error):
            yield f"{reason!r} is not in the refusal: {error}"
    else:
        yield "is not refused"


def judge(values: Path) -> Iterator[str]:
    """Yield the faults in the manifests of some values."""
    try:
        helm.lint(CHART, values)
        text = helm.render(CHART, values)
    except helm.HelmError as error:
        yield str(error)
        return
    manifests = [m for m in yaml.safe_load_all(text) if m]
    markets = yaml.safe_load(values.read_text("utf-8"))["markets"]
    edges = {
        name: market
        for name, market in markets.items()
        if market.get("edges", {}).get("replicas")
    }
    for manifest in manifests:
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        for problem in invalid(manifest):
            yield f"{where}: {problem}"
        if manifest["kind"] in ("StatefulSet", "Deployment"):
            is_edge = manifest["kind"] == "Deployment"
            wanted = edges if is_edge else markets
            labels = manifest["metadata"]["labels"]
            market = wanted.pop(labels["edge" if is_edge else "market"])
            for problem in (
                *insecure(manifest["spec"]["template"]["spec"]),
                *adrift(manifest, manifests),
                *(() if is_edge else miscounted(manifest, market)),
                *misunderstood(manifest, manifests, market),
            ):
                yield f"{where}: {problem}"
    yield from misnamed(manifests)
    yield from unreachable(manifests)
    for kind, left in (("stateful set", markets), ("deployment", edges)):
        if left:
            yield f"no {kind} for {', '.join(left)}"
    kinds = Counter(manifest["kind"] for manifest in manifests)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    print(f"{values.relative_to(ROOT)}: {counts}")


# One manifest


def invalid(manifest: Manifest) -> Iterator[str]:
    """Yield where a manifest does not match the schema of Kubernetes."""
    if manifest["kind"] in NO_SCHEMA:
        return
    for version in (OLDEST, kubernetes_validate.latest_version()):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            yield f"Kubernetes {version}: {path}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


def insecure(pod: Manifest) -> Iterator[str]:
    """Yield where a pod is not "restricted", or has too many permissions.

    Beyond the standard: a read-only root, a number for the user, no token
    of the cluster, and a limit of memory.
    """
    context = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not context.get("runAsUser"):
        yield "runAsUser is no number other than 0"
    profile = context.get("seccompProfile", {}).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"seccompProfile is {profile}"
    for field in ("sysctls", "seLinuxOptions", "windowsOptions"):
        if field in context:
            yield f"{field} is set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the token of the service account is mounted"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is of kind {kind}"
    for container in pod.get("initContainers", []) + pod["containers"]:
        for problem in insecure_container(container):
            yield f"container {container['name']}: {problem}"


def insecure_container(container: Manifest) -> Iterator[str]:
    """Yield where a container is not "restricted", or has a writable root."""
    context = container.get("securityContext", {})
    for field, wanted in (
        ("allowPrivilegeEscalation", False),
        ("readOnlyRootFilesystem", True),
    ):
        if context.get(field) is not wanted:
            yield f"{field} is not {wanted}"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "not all capabilities are dropped"
    # The pod decides; a container must not override it.
    known = {
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "capabilities",
    }
    for field in context.keys() - known:
        yield f"{field} is set"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the host is taken"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "no limit of memory"


# All manifests


def misnamed(manifests: list[Manifest]) -> Iterator[str]:
    """Yield names that are too long, or not unique."""
    names = Counter((m["kind"], m["metadata"]["name"]) for m in manifests)
    for (kind, name), count in names.items():
        if count > 1:
            yield f"{kind} {name}: {count} times"
        if len(name) > (
            STATEFUL_SET_MAX if kind == "StatefulSet" else NAME_MAX
        ):
            yield f"{kind} {name}: the name is too long"


def miscounted(stateful_set: Manifest, market: Manifest) -> Iterator[str]:
    """Yield where the number of pods, and what depends on it, is wrong.

    One pod has a volume. Two pods share a stream: they have no volume that
    stays, are on different nodes, and are replaced by hand, because a standby
    is never ready.
    """
    spec = stateful_set["spec"]
    pod = spec["template"]["spec"]
    is_shared = bool(market.get("cluster", {}).get("url"))
    if spec["replicas"] != 1 + is_shared:
        yield f"{spec['replicas']} replicas"
    if bool(spec.get("volumeClaimTemplates")) == is_shared:
        yield "a claim where there is a stream, or none where there is none"
    update = spec.get("updateStrategy", {}).get("type")
    if (update == "OnDelete") != is_shared:
        yield f"updateStrategy is {update}"
    rules = pod.get("affinity", {}).get("podAntiAffinity", {})
    apart = [
        rule
        for rule in rules.get(
            "requiredDuringSchedulingIgnoredDuringExecution", []
        )
        if rule["topologyKey"] == "kubernetes.io/hostname"
        and selects(
            rule["labelSelector"]["matchLabels"],
            spec["template"]["metadata"]["labels"],
        )
    ]
    if bool(apart) != is_shared:
        yield "its pods are not kept on different nodes, or one pod is"


def unreachable(manifests: list[Manifest]) -> Iterator[str]:
    """Yield where pods that share a stream may not connect to NATS."""
    ports = {
        int(host.rpartition(":")[2]) if ":" in host else 4222
        for manifest in manifests
        if manifest["kind"] in ("StatefulSet", "Deployment")
        for host in stream_hosts(manifest)
    }
    for manifest in manifests:
        if manifest["kind"] == "NetworkPolicy":
            allowed = {
                port["port"]
                for rule in manifest["spec"]["egress"]
                for port in rule["ports"]
            }
            if allowed != (ports | {53} if ports else set()):
                yield f"NetworkPolicy: egress to {allowed}, not {ports}"


def stream_hosts(manifest: Manifest) -> list[str]:
    """Return the servers of the stream that a pod's journal is, if any."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    journal = variables(container)["EXCHANGE_SERVER_JOURNAL"]
    if "://" not in journal:
        return []
    return journal.rpartition("@")[2].partition("/")[0].split(",")


def adrift(owner: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """Yield references of and to what owns pods that lead nowhere."""
    spec = owner["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]
    found = {(m["kind"], m["metadata"]["name"]): m for m in manifests}
    if not selects(spec["selector"]["matchLabels"], labels["labels"]):
        yield "does not select its pod"
    services = [
        service
        for (kind, _), service in found.items()
        if kind == "Service"
        and selects(service["spec"]["selector"], labels["labels"])
    ]
    is_set = owner["kind"] == "StatefulSet"
    if len(services) != 1 + is_set:
        yield f"{len(services)} services select its pod"
    named = [service["metadata"]["name"] for service in services]
    if is_set and spec["serviceName"] not in named:
        yield f"service {spec['serviceName']} is missing, or another's"
    if ("ServiceAccount", pod["serviceAccountName"]) not in found:
        yield f"service account {pod['serviceAccountName']} is missing"
    volumes = pod["volumes"] + [
        {"name": claim["metadata"]["name"]}
        for claim in spec.get("volumeClaimTemplates", [])
    ]
    for volume in volumes:
        config = volume.get("configMap")
        if config and ("ConfigMap", config["name"]) not in found:
            yield f"config map {config['name']} is missing"
    given = {volume["name"] for volume in volumes}
    used = {
        mount["name"]
        for container in pod.get("initContainers", []) + pod["containers"]
        for mount in container["volumeMounts"]
    }
    for name in given ^ used:
        yield f"volume {name} is only {'given' if name in given else 'used'}"


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Return whether a selector matches these labels."""
    return selector.items() <= labels.items()


def variables(container: Manifest) -> dict[str, str]:
    """Return the environment of a container; a secret is its own name."""
    found: dict[str, str] = {}
    for entry in container["env"]:
        value = entry.get("value")
        if value is None:
            secret = entry["valueFrom"]["secretKeyRef"]
            value = f"{secret['name']}.{secret['key']}"
        # As Kubernetes does with variables that were set before.
        for name, known in found.items():
            value = value.replace(f"$({name})", known)
        found[entry["name"]] = value
    return found


def misunderstood(
    owner: Manifest, manifests: list[Manifest], market: Manifest
) -> Iterator[str]:
    """Yield where the settings of the server differ from the values."""
    pod = owner["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = variables(container)
    for variable, value in asked_for(owner, market).items():
        if settings.get(variable) != value:
            yield f"{variable} is {settings.get(variable)}, not {value}"
    files = {
        manifest["metadata"]["name"]: manifest["data"].get("market.toml")
        for manifest in manifests
        if manifest["kind"] == "ConfigMap"
    }
    for volume in pod["volumes"]:
        text = files.get(volume.get("configMap", {}).get("name"))
        if text is not None:
            yield from mislisted(settings, text, market)


def asked_for(owner: Manifest, market: Manifest) -> dict[str, str | None]:
    """Return the settings of the server that the values of a market give."""
    variables: dict[str, str | None] = {}
    is_edge = owner["kind"] == "Deployment"
    variables["EXCHANGE_SERVER_ROLE"] = "read" if is_edge else None
    for name in LISTS.keys() & market.keys():
        values = market[name]
        if name == "origins" and "host" in market:
            schemes = ["https"] if market.get("hostTlsSecret") else BOTH
            values = [f"{s}://{market['host']}" for s in schemes] + values
        variables[LISTS[name]] = ",".join(values) or None
    for limit, value in market.get("limits", {}).items():
        variables[LIMITS[limit]] = str(value)
    cluster = market.get("cluster", {})
    if cluster.get("url"):
        user = "read" if is_edge else "trade"
        secret = cluster.get("secret", "exchange-nats")
        login = f"://{user}:{secret}.{user}@"
        name = owner["metadata"]["labels"]["edge" if is_edge else "market"]
        variables["EXCHANGE_SERVER_JOURNAL"] = (
            f"{cluster['url'].replace('://', login)}"
            f"/{cluster.get('stream') or name}"
        )
        variables["EXCHANGE_SERVER_JOURNAL_COPY"] = (
            None if is_edge else f"/data/{cluster.get('stream') or name}.db"
        )
    elif "journal" in market:
        variables["EXCHANGE_SERVER_JOURNAL"] = f"/data/{market['journal']}"
    if "open" in market:
        is_open = market["open"]
        variables["EXCHANGE_SERVER_OPEN"] = "1" if is_open else None
        variables["EXCHANGE_SERVER_KEYS"] = (
            None if is_open else "/keys/keys.json"
        )
    return variables


def mislisted(
    settings: dict[str, str], text: str, market: Manifest
) -> Iterator[str]:
    """Yield where the market of the server differs from the values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "market.toml")
        path.write_text(text, "utf-8")
        done = subprocess.run(
            [".venv/bin/python", "-c", SETTINGS],
            cwd=ROOT,
            env={**settings, "EXCHANGE_SERVER_MARKET": str(path)},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        yield f"the server refuses: {done.stderr.splitlines()[-1]}"
        return
    understood = json.loads(done.stdout)
    for table in ("instruments", "accounts"):
        wanted, listed = market.get(table, {}), understood[table]
        if listed.keys() != wanted.keys():
            yield f"the server lists {', '.join(listed)}"
        for name, fields in wanted.items():
            if not fields.items() <= listed.get(name, {}).items():
                yield f"the server understands {name} as {listed.get(name)}"
    for table in ("money", "account"):
        wanted, got = market.get(table, {}), understood[table] or {}
        if not wanted.items() <= got.items():
            yield f"the server understands {table} as {got}"
    for switch in ("public_positions", "public_leaderboard"):
        if market.get(switch, understood[switch]) != understood[switch]:
            yield f"the server understands {switch} as {understood[switch]}"


if __name__ == "__main__":
    sys.exit(main())
