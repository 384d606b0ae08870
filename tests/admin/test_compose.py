"""compose.yaml, Dockerfile and .env.example fit the code, as far as that can be told without a container engine."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin.main import app
from admin.supervisor import SERVICES
from core import settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
OURS = {name: each for name, each in COMPOSE["services"].items() if name not in ("postgres", "redis")}


def test_compose_runs_every_process_that_the_supervisor_runs_by_the_same_command() -> None:
    commands = {tuple(each["command"][2:]) for each in OURS.values() if each["command"][:2] == ["python", "-m"]}
    assert commands == {service.command for service in SERVICES}
    assert set(COMPOSE["services"]) == {
        "postgres", "redis", "migrate", "ingest", "worker", "score", "clerk", "worklist", "training",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_starts_something_that_exists_after_the_migration(name: str) -> None:
    program, *arguments = OURS[name]["command"]
    if program == "valuer":
        assert arguments[0] in {command.name or command.callback.__name__ for command in app.registered_commands}
        assert set(OURS[name]["depends_on"]) == {"postgres"}
    else:
        assert importlib.util.find_spec(arguments[1]) is not None
        assert OURS[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_services_set_only_what_the_settings_know() -> None:
    known = {f"VALUER_{name.upper()}" for kind in settings.ALL for name in kind.model_fields}
    assert {variable for each in OURS.values() for variable in each["environment"]} <= known


def test_no_password_has_a_default_and_nothing_is_published_beyond_loopback() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    references = re.findall(r"\$\{(\w+)(:\?|:-|-|\?)?", text)
    assert references
    assert all(kind == ":?" for _, kind in references)
    published = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert published == [f"127.0.0.1:{settings.WorklistSettings().port}:{settings.WorklistSettings().port}"]


def test_drafting_and_training_get_a_gpu_and_the_image_with_cuda() -> None:
    with_gpu = {name for name, each in OURS.items() if each.get("deploy")}
    assert with_gpu == {"worker", "training"}
    for name, each in OURS.items():
        assert each["build"]["target"] == ("cuda" if name in with_gpu else "cpu")
        assert each["image"].endswith(each["build"]["target"])


def test_the_images_that_compose_builds_are_stages_of_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert {each["build"]["target"] for each in OURS.values()} <= set(stages)
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / source).exists() for line in sources for source in line.split())
    assert text.rstrip().endswith("USER valuer")


def test_compose_itself_accepts_the_file_where_it_is_installed(tmp_path: Path) -> None:
    plugin = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    if not plugin or plugin.returncode:
        pytest.skip("docker compose is not installed here")
    secrets = {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    command = ["docker", "compose", "-f", str(ROOT / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=secrets, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_that_only_measurements_need_is_in_the_images() -> None:
    product, measuring = (
        {line.split("==")[0].lower() for line in (ROOT / name).read_text("utf-8").splitlines() if "==" in line}
        for name in ("requirements.lock", "requirements-bench.lock")
    )
    assert {"dlt", "pyarrow"} <= measuring
    assert not product & measuring
    assert "requirements-bench.lock" not in (ROOT / "Dockerfile").read_text("utf-8")
