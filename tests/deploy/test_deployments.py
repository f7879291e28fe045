"""Static checks of the Dockerfile, the compose file and the Kubernetes manifests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from deploy import env

DEPLOY = Path(env.__file__).parent
FILES = [DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *sorted((DEPLOY / "kubernetes").glob("*.yaml"))]
MANIFESTS = [found for path in FILES[2:] for found in yaml.safe_load_all(path.read_text())]
# The oldest and the newest version that the manifests are checked against.
KUBERNETES_VERSIONS = ("1.31", "1.37")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every pod of the manifests, with the name of its object."""
    for manifest in MANIFESTS:
        if manifest["kind"] in ("Deployment", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def commands() -> set[tuple[str, ...]]:
    """Yields every command line in the files."""
    result = {tuple(container["command"]) for _, pod in pods() for container in pod["containers"]}
    result |= {
        tuple(each["command"])
        for each in COMPOSE["services"].values()
        if "command" in each and each["image"] == "pipeline"
    }
    (image,) = re.findall(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return result | {tuple(json.loads(image))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_set_what_there_is_and_no_development_issuer(path: Path) -> None:
    """Files set only variables that a process reads, and none turns on the development issuer."""
    text = path.read_text()
    assert "DEV_ISSUER" not in text
    known_names = set(re.findall(r"^#?(PIPELINE_\w+)=", env.FILE.read_text(), re.MULTILINE))
    assert set(re.findall(r"PIPELINE_\w+", text)) <= known_names


@pytest.mark.parametrize(
    "manifest",
    [each for each in MANIFESTS if each["kind"] != "Kustomization"],
    ids=lambda each: f"{each['kind']}-{each['metadata']['name']}",
)
def test_manifests_follow_the_schema_of_kubernetes(manifest: dict[str, Any]) -> None:
    """Each manifest is valid under the schemas of the oldest and the newest supported version, without unknown fields."""
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    """The schema check refuses a field that Kubernetes does not have."""
    manifest = next(each for each in MANIFESTS if each["kind"] == "Deployment")
    broken = {**manifest, "spec": {**manifest["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, KUBERNETES_VERSIONS[-1], strict=True)


def test_network_policies_close_the_grpc_ports() -> None:
    """Every pod of the suite is denied ingress by default, and only named pods may reach the services."""
    policies = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "NetworkPolicy"}
    assert policies["pipeline-default-deny"].get("ingress") is None
    for name in ("pipeline-estimator", "pipeline-jobs"):
        for rule in policies[name]["ingress"]:
            assert rule["from"], name
    (kustomization,) = [each for each in MANIFESTS if each["kind"] == "Kustomization"]
    (labels,) = kustomization["labels"]
    assert labels["includeTemplates"], "the default policy selects pods by this label"
    selected = policies["pipeline-default-deny"]["podSelector"]["matchLabels"]
    assert selected.items() <= labels["pairs"].items()


@pytest.mark.slow
def test_every_command_exists() -> None:
    """Each command of a container exists and accepts its arguments."""
    result = commands()
    assert len(result) == 5
    for program, *arguments in result:
        assert program == "python"
        done = subprocess.run([sys.executable, *arguments, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done


def test_pods_are_not_root_and_bounded() -> None:
    """Case 70: no pod gets service links; each runs as non-root, with a memory limit and probes."""
    result = dict(pods())
    servers = {"pipeline-estimator", "pipeline-jobs", "pipeline-gateway"}
    assert set(result) == servers | {"pipeline-migrate", "pipeline-webhooks"}
    for name, pod in result.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        # Service links would put `JOBS_PORT=tcp://…` and the like into the environment.
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            secured = container["securityContext"]
            assert secured["allowPrivilegeEscalation"] is False, name
            assert secured["readOnlyRootFilesystem"] is True, name
            assert secured["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            if name != "pipeline-migrate":
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
    for name in ("estimator", "jobs"):
        (service,) = [each for each in MANIFESTS if each["kind"] == "Service" and each["metadata"]["name"] == name]
        assert service["spec"]["clusterIP"] == "None", "a channel sees pods through a headless service only"


def test_files_refer_to_secrets_and_contain_none() -> None:
    """No file contains a secret: manifests refer to one, and the compose file requires each from the environment."""
    assert not [each for each in MANIFESTS if each["kind"] == "Secret"]
    result = [
        variable["name"]
        for _, pod in pods()
        for container in pod["containers"]
        for variable in container.get("env", ())
        if "value" in variable
    ]
    assert result == []
    (config,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
    assert not [name for name in config["data"] if re.search("SECRET|PASSWORD|DATABASE_URL", name)]
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|DATABASE_URL", name):
                assert value is None or "${" in value, name


def test_only_prometheus_reaches_metrics() -> None:
    """Each server's pod has a metrics port that only the namespace of Prometheus can reach."""
    (config,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
    port = int(config["data"]["PIPELINE_METRICS_PORT"])
    for name, pod in pods():
        for container in pod["containers"]:
            ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
            assert name == "pipeline-migrate" or ports["metrics"] == port, name
    policies = {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == "NetworkPolicy"}
    (rule,) = policies["pipeline-metrics"]["ingress"]
    assert rule["ports"] == [{"port": "metrics"}]
    assert [set(peer) for peer in rule["from"]] == [{"namespaceSelector"}]
    (monitor,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "prometheus" / "pod_monitor.yaml").read_text())
    (kustomization,) = [each for each in MANIFESTS if each["kind"] == "Kustomization"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= kustomization["labels"][0]["pairs"].items()
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


def test_the_compose_file_follows_the_schema_of_compose(tmp_path: Path) -> None:
    """Every key is in Compose's schema, which refuses a misspelt one."""
    schema = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text((DEPLOY / "compose.yaml").read_text().replace("profiles:", "profils:"))
    for path, fault in ((DEPLOY / "compose.yaml", None), (misspelt, "profils")):
        done = subprocess.run(
            [Path(sys.executable).with_name(schema[0]), *schema[1:], path], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode == 0) == (fault is None), done.stdout
        assert fault is None or fault in done.stdout


def test_traces_have_a_way_to_grafana() -> None:
    """Tempo receives traces at the address in compose.yaml, stores them in its volume, and serves Grafana."""
    tempo = yaml.safe_load((DEPLOY / "tempo" / "tempo.yaml").read_text())
    endpoint = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    (sent_to,) = set(re.findall(r"PIPELINE_OTLP_ENDPOINT=(\S+?),? ", (DEPLOY / "compose.yaml").read_text()))
    assert (urlsplit(sent_to).hostname, urlsplit(sent_to).port) == ("tempo", int(endpoint.rpartition(":")[2]))
    sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "pipeline.yaml").read_text())
    ports = {each["uid"]: urlsplit(each["url"]).port for each in sources["datasources"]}
    assert ports == {"prometheus": 9090, "tempo": tempo["server"]["http_listen_port"]}
    (volume,) = [each for each in COMPOSE["services"]["tempo"]["volumes"] if each.startswith("tempo:")]
    for path in (tempo["storage"]["trace"]["local"]["path"], tempo["storage"]["trace"]["wal"]["path"]):
        assert path.startswith(f"{volume.split(':')[1]}/")


def test_the_observe_profile_scrapes_every_server_and_finds_its_files() -> None:
    """Prometheus scrapes what serves metrics in the compose file, mounts what exists, and Grafana finds the others."""
    services = COMPOSE["services"]
    observers = {name for name, each in services.items() if each.get("profiles") == ["observe"]}
    assert observers == {"prometheus", "grafana", "tempo"}
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    (targets,) = scraped["dns_sd_configs"]
    ports = {name: each.get("environment", {}).get("PIPELINE_METRICS_PORT") for name, each in services.items()}
    assert {name: port for name, port in ports.items() if port} == dict.fromkeys(targets["names"], targets["port"])
    for name in observers:
        for mount in services[name]["volumes"]:
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount
    provisioning = DEPLOY / "grafana" / "provisioning"
    for source in yaml.safe_load((provisioning / "datasources" / "pipeline.yaml").read_text())["datasources"]:
        assert urlsplit(source["url"]).hostname == source["uid"]
        assert source["uid"] in observers
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "pipeline.yaml").read_text())["providers"]
    assert any(provider["options"]["path"] in mount for mount in services["grafana"]["volumes"])


def test_each_process_has_a_login_of_its_own_and_the_gateway_none() -> None:
    """No two processes share a database login, and only the migration uses an administrator's."""
    for name in ("estimator", "jobs", "webhooks"):
        url = COMPOSE["services"][name]["environment"]["PIPELINE_DATABASE_URL"]
        assert url.startswith(f"postgresql://pipeline_{name}:"), name
        (container,) = dict(pods())[f"pipeline-{name}"]["containers"]
        (variable,) = [each for each in container["env"] if each["name"] == "PIPELINE_DATABASE_URL"]
        assert variable["valueFrom"]["secretKeyRef"]["key"] == f"{name}-database-url", name
    assert "PIPELINE_DATABASE_URL" not in COMPOSE["services"]["gateway"]["environment"]
    (container,) = dict(pods())["pipeline-gateway"]["containers"]
    assert "PIPELINE_DATABASE_URL" not in [each["name"] for each in container.get("env", ())]


def test_containers_take_either_issuer_and_reflect_nothing() -> None:
    """The compose file accepts a secret or a JWKS URL; in Kubernetes reflection is off."""
    for name in ("estimator", "jobs", "gateway"):
        passed_on = COMPOSE["services"][name]["environment"]
        assert [passed_on[f"PIPELINE_{each}"] for each in ("JWT_SECRET", "JWKS_URL")] == [None, None], name
    (config,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
    assert config["data"]["PIPELINE_REFLECTION"] == "false"


def test_the_kustomization_has_every_manifest() -> None:
    """The kustomization lists every manifest in the folder."""
    folder = DEPLOY / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
