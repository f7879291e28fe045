"""The Helm chart, rendered by Helm's own code, compared with `kubectl apply -k`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_deployments import DEPLOY, KUBERNETES_VERSIONS, MANIFESTS

VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {
        "image": {"repository": "registry.example/mirror/pipeline", "tag": "0.2.0"},
        "secretName": "pipeline-prod",
        "config": {"PIPELINE_JWT_ISSUER": "https://login.example/", "AWS_ENDPOINT_URL": "https://minio.example"},
        "replicas": {"gateway": 1, "estimator": 1, "jobs": 1, "webhooks": 1},
    },
    "all": {
        "ingress": {"host": "pipeline.example", "className": "nginx", "tlsSecretName": "pipeline-example"},
        "replicas": {"gateway": 12, "jobs": 4},
        "grpcTlsSecretName": "pipeline-grpc",
        "podMonitor": True,
    },
}
Objects = dict[tuple[str, str], dict[str, Any]]


def rendered(values: dict[str, Any]) -> Objects:
    """The objects of the chart, by kind and name."""
    with helm_python.Chart.load(str(DEPLOY / "helm" / "pipeline")) as chart:
        texts = chart.render(values, name="test", namespace="tests")
    objects = [each for text in texts.values() for each in yaml.safe_load_all(text) if each]
    assert len({identity(each) for each in objects}) == len(objects)
    return {identity(each): each for each in objects}


def identity(manifest: dict[str, Any]) -> tuple[str, str]:
    """Kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def kustomized() -> Iterator[dict[str, Any]]:
    """The objects of `kubectl apply -k`: the manifests with the labels and the image of the kustomization."""
    (kustomization,) = [each for each in MANIFESTS if each["kind"] == "Kustomization"]
    (labels,), (image,) = kustomization["labels"], kustomization["images"]
    assert labels["includeTemplates"]
    for manifest in MANIFESTS:
        if manifest["kind"] == "Kustomization":
            continue
        made = copy.deepcopy(manifest)
        made["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if template := made["spec"].get("template") if "spec" in made else None:
            template.setdefault("metadata", {}).setdefault("labels", {}).update(labels["pairs"])
            for container in template["spec"]["containers"]:
                assert container["image"] == image["name"]
                container["image"] = f"{image['newName']}:{image['newTag']}"
        yield made


def test_the_default_values_make_what_kustomize_makes() -> None:
    """Chart and kustomization make the same objects."""
    assert rendered(VALUES["default"]) == {identity(each): each for each in kustomized()}


@pytest.mark.parametrize("name", VALUES)
def test_what_it_makes_follows_the_schema_of_kubernetes(name: str) -> None:
    """Objects of three sets of values are valid for the oldest and newest supported version of Kubernetes."""
    for (kind, _), manifest in rendered(VALUES[name]).items():
        if kind != "PodMonitor":  # a custom resource of the Prometheus operator
            for version in KUBERNETES_VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)


def containers(objects: Objects) -> dict[str, dict[str, Any]]:
    """The container of each server and of the migration, by name."""
    pods = [each["spec"]["template"]["spec"] for (kind, _), each in objects.items() if kind in ("Deployment", "Job")]
    return {container["name"]: container for pod in pods for container in pod["containers"]}


def test_image_secret_settings_and_replicas_are_those_of_the_values() -> None:
    """Values reach every object that uses them; other settings of the manifests stay."""
    values, objects = VALUES["small"], rendered(VALUES["small"])
    for container in containers(objects).values():
        assert container["image"] == "registry.example/mirror/pipeline:0.2.0"
        assert {each["valueFrom"]["secretKeyRef"]["name"] for each in container.get("env", ())} <= {"pipeline-prod"}
    data = objects["ConfigMap", "pipeline"]["data"]
    assert values["config"].items() <= data.items()
    assert data["PIPELINE_STORAGE_URL"] == "s3://pipeline-storage/pipeline"
    for server in ("jobs", "webhooks"):
        assert objects["Deployment", f"pipeline-{server}"]["spec"]["replicas"] == 1
    for server in ("gateway", "estimator"):
        assert objects["HorizontalPodAutoscaler", f"pipeline-{server}"]["spec"]["minReplicas"] == 1


def test_tls_and_the_host_reach_every_server() -> None:
    """Certificates are mounted where servers read them, and the gateway has the public origin."""
    objects = rendered(VALUES["all"])
    data = objects["ConfigMap", "pipeline"]["data"]
    assert data["PIPELINE_PUBLIC_ORIGIN"] == "https://pipeline.example"
    files = [data[f"PIPELINE_TLS_{each}_FILE"] for each in ("CERTIFICATE", "KEY", "CA")]
    for name in ("gateway", "estimator", "jobs"):
        (mount,) = [each for each in containers(objects)[name]["volumeMounts"] if each["name"] == "tls"]
        assert all(file.startswith(f"{mount['mountPath']}/") for file in files)
        volumes = objects["Deployment", f"pipeline-{name}"]["spec"]["template"]["spec"]["volumes"]
        assert {"name": "tls", "secret": {"secretName": "pipeline-grpc"}} in volumes
    assert objects["Ingress", "pipeline"]["spec"]["tls"] == [
        {"hosts": ["pipeline.example"], "secretName": "pipeline-example"}
    ]
    scaled = objects["HorizontalPodAutoscaler", "pipeline-gateway"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (12, 12)
    assert ("PodMonitor", "pipeline") in objects
