"""What Kubernetes, Railway and Render are told: their own words, one finn at a time, and time enough to stop."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway import settings
from tests.deploy import linters

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = (DEPLOY / "kubernetes" / "finn.yaml", DEPLOY / "kubernetes" / "secret.yaml")
VERSIONS = ("1.29", "1.35")


def documents(path: Path) -> Iterator[Any]:
    yield from yaml.safe_load_all(path.read_text())


def stateful_set() -> Any:
    return next(each for each in documents(KUBERNETES[0]) if each["kind"] == "StatefulSet")["spec"]


def environment(container: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


# ---------------------------------------------------------------- Kubernetes


@linters.needed
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_word(version: str) -> None:
    assert linters.said("kubernetes-validate", "--strict", "-k", version, *KUBERNETES)[0] == 0


@linters.needed
@pytest.mark.slow
def test_kubernetes_finds_a_slip_of_the_pen(tmp_path: Path) -> None:
    slip = tmp_path / "finn.yaml"
    slip.write_text(KUBERNETES[0].read_text().replace("terminationGracePeriodSeconds", "terminationGracePeriod"))
    code, text = linters.said("kubernetes-validate", "--strict", slip)
    assert code == 1
    assert "terminationGracePeriod" in text


def test_one_pod_has_one_volume_and_time_to_stop() -> None:
    spec = stateful_set()
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (claim,) = spec["volumeClaimTemplates"]
    assert spec["replicas"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]} == {"data": "/data", "tmp": "/tmp"}
    budget = settings.duration(environment(container)["FINN_SHUTDOWN_BUDGET"])
    assert budget + 10 <= pod["terminationGracePeriodSeconds"]


def test_each_probe_asks_what_it_is_for() -> None:
    (container,) = stateful_set()["template"]["spec"]["containers"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_the_pod_has_no_right_it_does_not_need() -> None:
    pod = stateful_set()["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    # A Service called finn would put FINN_PORT=tcp://… into the environment, which finn would refuse.
    assert pod["enableServiceLinks"] is False


def test_every_variable_in_a_manifest_is_a_setting() -> None:
    (container,) = stateful_set()["template"]["spec"]["containers"]
    (secret,) = documents(KUBERNETES[1])
    (render,) = yaml.safe_load((DEPLOY / "render" / "render.yaml").read_text())["services"]
    named = {*environment(container), *secret["stringData"], *(each["key"] for each in render["envVars"])}
    assert named <= settings.KNOWN
    assert {value for value in secret["stringData"].values() if value not in ("", "auto")} == set()


# ---------------------------------------------------------------- Railway and Render


def test_railway_is_told_in_numbers_and_overlaps_nothing() -> None:
    told = json.loads((DEPLOY / "railway" / "railway.json").read_text())
    assert told["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    assert told["deploy"] == {
        "numReplicas": 1,
        "healthcheckPath": "/readyz",
        "healthcheckTimeout": 120,
        "restartPolicyType": "ON_FAILURE",
        "restartPolicyMaxRetries": 10,
        "drainingSeconds": 60,
        "overlapSeconds": 0,
        "sleepApplication": False,
    }


def test_render_keeps_everything_in_the_store_and_waits_for_a_stop() -> None:
    (told,) = yaml.safe_load((DEPLOY / "render" / "render.yaml").read_text())["services"]
    said = {each["key"]: each.get("value") for each in told["envVars"]}
    assert (told["numInstances"], told["healthCheckPath"], "disk" in told) == (1, "/readyz", False)
    assert said["FINN_DURABILITY"] == "store"
    assert settings.duration(said["FINN_SHUTDOWN_BUDGET"] or "") + 10 <= told["maxShutdownDelaySeconds"] <= 300
    assert (ROOT / told["dockerfilePath"]).is_file()
