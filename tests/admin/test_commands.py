"""The commands over a real database: what they answer, and that each can be understood and read by a program."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner, Result

from admin import supervisor
from admin.main import app
from core import audit, callbacks, db, embedded
from core.errors import Broken, Invalid, NotFound, Refused
from core.identity import Keyring
from core.settings import Settings
from tests.builders import accept, body, institution
from worklist import access

Valuer = Callable[..., Result]


@pytest.fixture
def valuer(
    servers: embedded.Servers, database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command on an installation with the test's own database."""
    for name, value in {"HOME": home, "DATABASE_URL": database_url, "BROKER_URL": servers.broker_url}.items():
        monkeypatch.setenv(f"VALUER_{name}", str(value))
    supervisor.prepare(Settings(), embedded.Servers(database_url, servers.broker_url))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def _json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.exception
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def _commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command below a group by its path."""
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _commands(each, f"{path} {name}".strip())
    else:
        yield path, command


def test_every_command_says_what_it_does_and_speaks_json() -> None:
    found = dict(_commands(typer.main.get_command(app)))
    assert {"up", "down", "status", "check", "score", "keys create", "users list", "models promote"} <= set(found)
    for path, command in found.items():
        assert command.help, path
        assert "--json" in {name for each in command.params for name in each.opts}, path
        help_page = CliRunner().invoke(app, [*path.split(), "--help"])
        assert help_page.exit_code == 0
        assert "Usage" in help_page.stdout


def test_without_an_installation_a_command_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUER_HOME", str(tmp_path / "none"))
    result = CliRunner().invoke(app, ["status"])
    assert isinstance(result.exception, Refused)
    assert "valuer up" in result.exception.message
    assert not (tmp_path / "none").exists()


def test_a_setting_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUER_PORT", "many")
    result = CliRunner().invoke(app, ["up", "--home", str(tmp_path)])
    assert isinstance(result.exception, Refused)
    assert "VALUER_PORT" in result.exception.message


def test_status_of_an_idle_installation(valuer: Valuer) -> None:
    status = _json(valuer("status", "--json"))
    assert status == {
        "processes": [],
        "queue": {"waiting": 0, "running": 0, "needs_human": 0},
        "model": {"version": None, "base": None},
        "institutions": [],
    }
    assert "No process runs" in valuer("status").stdout


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(valuer: Valuer) -> None:
    made = _json(valuer("keys", "create", "RIS", "--role", "admin", "--json"))
    assert made["key"].startswith(f"vk_{made['id']}_")
    (listed,) = _json(valuer("keys", "list", "--json"))["keys"]
    assert (listed["name"], listed["revoked_at"]) == ("RIS", None)
    assert made["key"] not in valuer("keys", "list").stdout
    _json(valuer("keys", "revoke", made["id"], "--json"))
    assert _json(valuer("keys", "list", "--json"))["keys"][0]["revoked_at"]
    assert isinstance(valuer("keys", "revoke", "none").exception, NotFound)
    assert isinstance(valuer("keys", "create", "RIS").exception, Invalid)  # a system's key names its institution


def test_a_person_gets_a_link_and_can_be_shut_out(valuer: Valuer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    made = _json(valuer("users", "create", "li", "--name", "李医师", "--password-file", str(password), "--json"))
    assert made["link"].startswith("http://127.0.0.1:8087/enter?link=")
    assert _json(valuer("users", "link", "li", "--json"))["link"] != made["link"]
    assert "李医师" in valuer("users", "list").stdout
    _json(valuer("users", "disable", "li", "--json"))
    assert _json(valuer("users", "list", "--json"))["users"][0]["disabled_at"]
    assert isinstance(valuer("users", "link", "wang").exception, NotFound)


def test_the_audit_chain_is_verified_and_exported(valuer: Valuer, tmp_path: Path, database_url: str) -> None:
    valuer("keys", "create", "RIS", "--role", "admin")
    assert _json(valuer("audit", "verify", "--json"))["unsealed"] == 1
    engine = db.connect(database_url)
    with db.transaction(engine) as session:
        audit.seal(session)
    exported = _json(valuer("audit", "export", str(tmp_path / "audit.jsonl"), "--json"))
    assert exported["events"] == 1
    assert json.loads((tmp_path / "audit.jsonl").read_text())["hash"] == exported["head"]
    with db.transaction(engine) as session:
        session.execute(sa.text("ALTER TABLE audit_events DISABLE TRIGGER ALL"))
        session.execute(sa.text("UPDATE audit_events SET actor = 'nobody'"))
    engine.dispose()
    assert isinstance(valuer("audit", "verify").exception, Broken)


def test_the_doctor_finds_a_key_file_that_others_can_read(valuer: Valuer, home: Path) -> None:
    result = valuer("doctor", "--json")
    assert isinstance(result.exception, Broken)  # no process runs
    checks = {each["name"]: each["ok"] for each in json.loads(result.stdout.splitlines()[-1])["checks"]}
    assert checks == {
        "disk": True,
        "keys": True,
        "institutions": True,
        "database": True,
        "broker": True,
        "processes": False,
    }
    (home / "master.key").chmod(0o644)
    checks = {each["name"]: each["ok"] for each in json.loads(valuer("doctor", "--json").stdout)["checks"]}
    assert not checks["keys"]


def test_a_request_on_the_command_line_goes_through_the_door(valuer: Valuer, tmp_path: Path, database_url: str) -> None:
    engine = db.connect(database_url)
    with db.transaction(engine) as session:
        institution(session)
    engine.dispose()
    file = tmp_path / "request.json"
    file.write_text(json.dumps(body()), "utf-8")
    sent = _json(valuer("draft", str(file), "--wait", "0", "--json"))
    assert sent["state"] == "queued"
    assert _json(valuer("status", "--json"))["queue"]["waiting"] == 1
    assert "until a worker runs" in valuer("draft", str(file), "--wait", "0").stdout
    file.write_text(json.dumps(body(sexx=1)), "utf-8")
    refused = valuer("draft", str(file))
    assert isinstance(refused.exception, Invalid)
    assert "sexx" in refused.exception.message


def test_models_are_listed_and_an_unknown_one_is_refused(valuer: Valuer) -> None:
    assert _json(valuer("models", "list", "--json")) == {"models": []}
    assert isinstance(valuer("models", "promote", "none").exception, NotFound)
    assert isinstance(valuer("models", "rollback").exception, Refused)


def test_a_training_run_is_queued_listed_and_cancelled(valuer: Valuer) -> None:
    run = _json(valuer("train", "start", "--profile", "smoke", "--json"))["run"]
    assert [(each["run"], each["state"]) for each in _json(valuer("train", "list", "--json"))["runs"]] == [
        (run, "queued")
    ]
    assert _json(valuer("train", "cancel", run, "--json"))["state"] == "cancelled"
    followed = valuer("train", "follow", run)
    assert isinstance(followed.exception, Broken)
    assert isinstance(valuer("train", "start", "--profile", "none").exception, Refused)


def test_nothing_to_train_on_is_said_before_anything_starts(valuer: Valuer) -> None:
    for command in (("dataset", "build"), ("train", "--dry-run"), ("train", "start", "--dry-run")):
        result = valuer(*command)
        assert isinstance(result.exception, Refused)
        assert "no signed report" in result.exception.message
    assert _json(valuer("dataset", "list", "--json")) == {"datasets": []}
    assert isinstance(valuer("dataset", "show", "none").exception, NotFound)
    assert isinstance(valuer("evaluate", "run", "none").exception, NotFound)


def test_ingest_without_institutions_reads_nothing(valuer: Valuer) -> None:
    assert _json(valuer("ingest", "run", "--json")) == {"institutions": []}
    assert _json(valuer("ingest", "quarantine", "list", "--json")) == {"rows": []}
    assert isinstance(valuer("ingest", "run", "nowhere").exception, NotFound)


def test_down_and_migrate_where_nothing_runs(valuer: Valuer) -> None:
    assert _json(valuer("down", "--json")) == {"stopped": []}
    assert _json(valuer("migrate", "--json"))["changed"] is False


def test_a_lost_key_is_not_replaced_by_a_new_one(valuer: Valuer, home: Path, database_url: str) -> None:
    engine = db.connect(database_url)
    with db.transaction(engine) as session:
        institution(session)
        accept(session, Keyring.load(home / "master.key"))
    engine.dispose()
    (home / "master.key").unlink()
    result = valuer("migrate")
    assert isinstance(result.exception, Broken)
    assert "restore it" in result.exception.message
    assert not (home / "master.key").exists()


def test_an_institution_gets_the_secret_that_its_callbacks_are_signed_with(
    valuer: Valuer, home: Path, database: sa.Engine
) -> None:
    with db.transaction(database) as session:
        institution(session, "north")
    found = _json(valuer("keys", "callback-secret", "north", "--json"))
    assert found["secret"] == callbacks.secret(Keyring.load(home / "master.key"), "north")
    assert isinstance(valuer("keys", "callback-secret", "nowhere").exception, NotFound)


def test_a_persons_token_lets_a_script_act_as_them_until_they_are_disabled(valuer: Valuer, database: sa.Engine) -> None:
    assert valuer("users", "create", "lin", "--name", "Lin").exit_code == 0
    token = _json(valuer("users", "token", "lin", "--json"))["token"]
    with db.transaction(database) as session:
        caller = access.by_token(session, token)
        assert caller is not None
        assert (caller.actor.kind, caller.name) == ("user", "Lin")
    assert valuer("users", "disable", "lin").exit_code == 0
    with db.transaction(database) as session:
        assert access.by_token(session, token) is None
