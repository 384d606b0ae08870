"""An installation on the test's own database, and its commands run in this process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from admin import supervisor
from admin.main import app
from core import embedded
from core.settings import Settings

Valuer = Callable[..., Result]


@pytest.fixture
def valuer(servers: embedded.Servers, database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Valuer:
    """Runs a command on an installation with the test's own database."""
    for name, value in {"HOME": home, "DATABASE_URL": database_url, "BROKER_URL": servers.broker_url}.items():
        monkeypatch.setenv(f"VALUER_{name}", str(value))
    supervisor.prepare(Settings(), embedded.Servers(database_url, servers.broker_url))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def answered(result: Result) -> dict[str, Any]:
    """What a command that did its work says as JSON on its last line."""
    assert result.exit_code == 0, result.exception
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found
