"""The manifests of trainings on Kubernetes, against the schemas of Kubernetes, Kubeflow Trainer and KEDA."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy import env
from tests.deploy.custom_resources import problems
from tests.deploy.test_deployments import KUBERNETES_VERSIONS
from trainer.dispatcher.trainjob import NODE_JOB
from trainer.settings import DispatcherSettings

FOLDER = Path(env.__file__).parent / "kubernetes/trainer"
FILES = sorted(FOLDER.rglob("*.yaml"))
MANIFESTS = [manifest for file in FILES for manifest in yaml.safe_load_all(file.read_text())]
CUSTOM = ("ClusterTrainingRuntime", "ScaledObject")
RUNTIME = next(each for each in MANIFESTS if each["kind"] == "ClusterTrainingRuntime")
(NODE,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
POD = NODE["template"]["spec"]["template"]["spec"]


def deployment(name: str) -> dict[str, Any]:
    """The pod of a Deployment."""
    (found,) = [each for each in MANIFESTS if each["kind"] == "Deployment" and each["metadata"]["name"] == name]
    return dict(found["spec"]["template"]["spec"])


PODS = {
    "runtime": POD,
    "plain": deployment("pipeline-trainer-a100"),
    "dispatcher": deployment("pipeline-dispatcher"),
}


@pytest.mark.parametrize(
    "manifest",
    [each for each in MANIFESTS if each["kind"] != "Kustomization"],
    ids=lambda each: f"{each['kind']}-{each['metadata']['name']}",
)
def test_manifests_follow_their_schemas(manifest: dict[str, Any]) -> None:
    """Each manifest is valid under the schema of its kind, without unknown fields."""
    if manifest["kind"] in CUSTOM:
        assert problems(manifest) == []
    else:
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_of_a_custom_resource_is_found() -> None:
    """The schema check refuses an unknown field of a custom resource at any depth."""
    broken = copy.deepcopy(RUNTIME)
    broken["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["backOffLimit"] = 0
    assert any("backOffLimit" in problem for problem in problems(broken))


def test_only_the_jobs_service_retries() -> None:
    """The runtime does not retry pods: the Jobs service counts and bills attempts."""
    assert RUNTIME["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 0
    assert (NODE["template"]["spec"]["backoffLimit"], POD["restartPolicy"]) == (0, "Never")


def test_the_runtime_is_the_one_that_train_jobs_refer_to() -> None:
    """The runtime has the name and labels that the dispatcher and Kubeflow Trainer use."""
    assert RUNTIME["metadata"]["name"] == DispatcherSettings.model_fields["kubernetes_runtime"].default
    assert NODE["name"] == NODE_JOB
    assert NODE["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    assert [container["name"] for container in POD["containers"]] == ["node"]


@pytest.mark.parametrize("name", PODS)
def test_pods_are_not_root_and_bounded(name: str) -> None:
    """Each pod runs as non-root with a memory limit, and trainings have no service account token."""
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["enableServiceLinks"] is False
    assert name == "dispatcher" or pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        secured = container["securityContext"]
        assert (secured["allowPrivilegeEscalation"], secured["capabilities"]) == (False, {"drop": ["ALL"]})
        assert secured["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]


def test_preempted_pods_have_time_for_a_checkpoint() -> None:
    """The grace period of a training's pod is longer than PIPELINE_TRAINER_STOP_SECONDS."""
    stop_seconds = DispatcherSettings.model_fields["trainer_stop_seconds"].default
    for name in ("runtime", "plain"):
        assert PODS[name]["terminationGracePeriodSeconds"] > stop_seconds, name


def test_variables_are_those_that_are_read_and_none_is_a_secret() -> None:
    """The manifests set only variables of env.example, and tokens are files of a Secret."""
    known = set(re.findall(r"^#?(PIPELINE_\w+)=", env.FILE.read_text(), re.MULTILINE))
    for file in FILES:
        assert set(re.findall(r"PIPELINE_\w+", file.read_text())) <= known, file
    assert not [each for each in MANIFESTS if each["kind"] == "Secret"]
    for pod in PODS.values():
        variables = {each["name"] for container in pod["containers"] for each in container["env"]}
        assert not variables & {"PIPELINE_TRAINER_TOKEN", "PIPELINE_TRAINER_LEASE"}


def test_the_dispatcher_reads_secrets_of_trainings_alone() -> None:
    """Its Role for secrets is in the namespace of trainings, and no ClusterRole has secrets."""
    (container,) = PODS["dispatcher"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    own = next(each["metadata"]["namespace"] for each in MANIFESTS if each["kind"] == "ServiceAccount")
    (namespace,) = [each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "Namespace"]
    assert variables["PIPELINE_KUBERNETES_NAMESPACE"] == namespace != own
    roles = [each for each in MANIFESTS if each["kind"] in ("Role", "ClusterRole")]
    reads = [each for each in roles if any("secrets" in rule["resources"] for rule in each["rules"])]
    assert [(each["kind"], each["metadata"]["namespace"]) for each in reads] == [("Role", namespace)]
    (binding,) = [each for each in MANIFESTS if each["kind"] == "RoleBinding"]
    assert (binding["metadata"]["namespace"], binding["subjects"][0]["namespace"]) == (namespace, own)
    # Whoever is in that namespace reaches the Jobs service as a trainer, and nobody reaches its pods from elsewhere.
    text = (FOLDER.parent / "network.yaml").read_text()
    assert f"kubernetes.io/metadata.name: {namespace}" in text
    address = next(each["value"] for each in POD["containers"][0]["env"] if each["name"] == "PIPELINE_JOBS_ADDRESS")
    assert address == f"dns:///jobs.{own}:50052"


def test_kustomizations_have_every_manifest() -> None:
    """What is in a folder is what `kubectl apply -k` applies."""
    for folder in (FOLDER, FOLDER / "plain"):
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert sorted(listed) == sorted(
            path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"
        )
