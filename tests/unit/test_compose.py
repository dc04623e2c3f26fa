"""The compose files, the Dockerfile and what they mount hold together; no engine is needed to see that."""

import fnmatch
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from typer.main import get_command

from sfumato.cli import app
from sfumato.cluster.nginx import BURST_S, RATE_PER_S, max_body_bytes, template
from sfumato.config import Settings
from sfumato.models.registry import Registry

ROOT = Path(__file__).parents[2]
FILES = ["docker-compose-infra.yaml", "docker-compose.yaml", "docker-compose.gpu.yaml"]
CHANGES = "docker-compose.gpu.yaml"
"""Changes services of the others and is used on top of them alone."""


def load(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return content


def services(*files: str) -> dict[str, dict[str, Any]]:
    return {name: service for file in files for name, service in load(file)["services"].items()}


SERVICES = services(*(file for file in FILES if file != CHANGES))
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_lasting = pytest.mark.parametrize("service", LASTING.values(), ids=LASTING)


def text(node: object) -> Iterator[str]:
    """Every string anywhere below."""
    if isinstance(node, dict):
        for value in node.values():
            yield from text(value)
    elif isinstance(node, list):
        for value in node:
            yield from text(value)
    else:
        yield str(node)


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_to_the_compose_specification(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        check_jsonschema(["--builtin-schema", "vendor.compose-spec", str(ROOT / file)])
    assert end.value.code == 0, capsys.readouterr().out


@each_service
def test_every_setting_is_one_of_ours(service: dict[str, Any]) -> None:
    settings = {f"SFUMATO_{name.upper()}" for name in Settings.model_fields}
    named = {name for name in service.get("environment", {}) if name.startswith("SFUMATO_")}
    assert named <= settings


@each_service
def test_every_port_is_open_to_this_host_alone(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_service
def test_image_is_a_certain_one(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z/]+:(v?\d+(\.\d+)+|cpu)", service["image"]), service["image"]


@each_lasting
def test_health_is_asked_for(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"]


@each_lasting
def test_nothing_that_lasts_runs_as_root(service: dict[str, Any]) -> None:
    own_user = service["image"].startswith(("apache/kafka", "sfumato"))
    assert own_user or int(service["user"].split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


@each_service
def test_file_systems_are_read_only(service: dict[str, Any]) -> None:
    assert service.get("read_only") or service["image"].startswith("apache/kafka")


@each_service
def test_no_password_stands_in_a_file(service: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|DATABASE_URL|RATES_URL")
    values = [value for name, value in service.get("environment", {}).items() if secret.search(name)]
    assert all(re.search(r"\$\{\w+:\?run make env\}", value) for value in values)


@pytest.mark.parametrize("file", FILES)
def test_who_is_waited_for_exists(file: str) -> None:
    awaited = {name for service in services(file).values() for name in service.get("depends_on", {})}
    assert awaited <= set(SERVICES)
    assert load("docker-compose.yaml")["include"] == ["docker-compose-infra.yaml"]


def test_who_is_waited_for_says_when_it_is_ready() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            once = SERVICES[name]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


def test_gpu_file_changes_services_that_there_are() -> None:
    assert set(services(CHANGES)) <= set(SERVICES)


def test_every_volume_is_used_and_every_mounted_file_is_there() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    volumes = {name for file in FILES for name in load(file).get("volumes", {})}

    assert {name for name in mounted if not name.startswith(".")} == volumes
    assert [name for name in mounted if name.startswith(".") and not (ROOT / name).is_file()] == []


# Valkey


def test_valkey_is_reached_from_inside_alone_by_who_knows_its_password_and_never_grows() -> None:
    service, gateway = SERVICES["valkey"], SERVICES["gateway"]
    assert "ports" not in service
    assert service["mem_limit"] == "128m"
    assert "maxmemory 64mb" in service["command"][-1]
    assert gateway["environment"]["SFUMATO_RATES_URL"].endswith("@valkey:6379")
    assert "valkey" not in gateway["depends_on"]  # it may be away at any time


# nginx


def test_nginx_is_given_every_variable_of_its_template_and_lets_every_body_through() -> None:
    given = {name.removeprefix("NGINX_"): value for name, value in SERVICES["nginx"]["environment"].items()}

    assert set(re.findall(r"\$\{NGINX_(\w+)\}", template())) == {name for name in given if "ENVSUBST" not in name}
    assert given["MAX_BODY_BYTES"] == max_body_bytes(Settings().max_upload_bytes)
    assert (given["RATE_PER_S"], given["BURST"]) == (RATE_PER_S, BURST_S * RATE_PER_S)


# What the files lead to


def test_models_that_are_listed_can_be_served() -> None:
    registry = Registry.load(ROOT / "deploy" / "models.toml")
    assert registry.names()
    assert not registry.troubles


@pytest.mark.parametrize("service", [name for name, each in LASTING.items() if each["image"].startswith("sfumato")])
def test_every_role_is_one_that_there_is(service: str) -> None:
    assert SERVICES[service]["command"][0] in get_command(app).commands  # type: ignore[attr-defined]


def test_prometheus_asks_services_that_there_are() -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    sources = yaml.safe_load((ROOT / "deploy" / "grafana" / "datasource.yml").read_text())["datasources"]

    assert {name for job in jobs for each in job["dns_sd_configs"] for name in each["names"]} <= set(SERVICES)
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]


def test_prometheus_asks_every_role_on_the_port_on_which_it_shows_its_metrics() -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {name: each["port"] for job in jobs for each in job["dns_sd_configs"] for name in each["names"]}
    roles = {name: each for name, each in SERVICES.items() if each["image"] == "sfumato:cpu" and name in LASTING}

    shown = {name: role["environment"]["SFUMATO_METRICS_PORT"] for name, role in roles.items()}
    shown["gateway"] = roles["gateway"]["environment"]["SFUMATO_PORT"]
    assert asked == shown
    assert {role["environment"]["SFUMATO_HOST"] for role in roles.values()} == {"0.0.0.0"}  # noqa: S104 - inside of the network


DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("file", FILES)
def test_every_image_that_is_built_has_its_target(file: str) -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    built = {service["build"]["target"]: service["image"] for service in services(file).values() if "build" in service}

    assert built.items() <= {target: f"sfumato:{target}" for target in targets}.items()


def test_image_runs_as_a_user_of_its_own() -> None:
    assert re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_what_the_image_is_made_of_is_there_and_let_through() -> None:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if not any(fnmatch.fnmatch(name, each) for each in allowed)] == []


# .env


@pytest.fixture
def make_env() -> Any:
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "deploy" / "make_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_env_has_every_password_that_the_files_ask_for(make_env: Any, tmp_path: Path) -> None:
    assert make_env.main(tmp_path / ".env") == 0

    values = dict(re.findall(r"^(\w+)=(\S+)$", (tmp_path / ".env").read_text(), re.MULTILINE))
    asked = {name for value in text(SERVICES) for name in re.findall(r"\$\{(\w+):\?", value)}
    assert asked == set(values)
    assert len(set(values.values())) == len(values)
    assert all(len(value) >= 20 for value in values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_env_is_never_written_over(make_env: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=the one that the volume knows\n")

    assert make_env.main(tmp_path / ".env") == 1

    assert "is left as it is" in capsys.readouterr().err
    assert (tmp_path / ".env").read_text() == "POSTGRES_PASSWORD=the one that the volume knows\n"


def test_env_never_gets_into_the_repository_or_an_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"
