"""The commands over a real database: what they answer, and that each can be understood and read by a program."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from sqlmodel import select
from typer.testing import CliRunner

from admin.main import app
from clinical.score import SCORER_VERSION
from core import audit, callbacks, db, institutions, leases, sign_offs
from core.errors import Broken, Invalid, NotFound, Refused
from core.identity import Keyring
from core.states import Reason
from core.tables import AuditEvent, ScoreRow
from tests.admin.conftest import Valuer, answered
from tests.builders import DOCTOR, QUEUE, accept, body, institution
from worklist import access


def _commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command below a group by its path."""
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _commands(each, f"{path} {name}".strip())
    else:
        yield path, command


def test_every_command_says_what_it_does_and_speaksanswered() -> None:
    found = dict(_commands(typer.main.get_command(app)))
    assert {
        "up",
        "down",
        "status",
        "check",
        "score files",
        "rescore",
        "keys create",
        "users list",
        "models promote",
    } <= set(found)
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
    status = answered(valuer("status", "--json"))
    assert status == {
        "processes": [],
        "queue": {"waiting": 0, "running": 0, "needs_human": 0},
        "model": {"version": None, "base": None},
        "institutions": [],
    }
    assert "No process runs" in valuer("status").stdout


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(valuer: Valuer) -> None:
    made = answered(valuer("keys", "create", "RIS", "--role", "admin", "--json"))
    assert made["key"].startswith(f"vk_{made['id']}_")
    (listed,) = answered(valuer("keys", "list", "--json"))["keys"]
    assert (listed["name"], listed["revoked_at"]) == ("RIS", None)
    assert made["key"] not in valuer("keys", "list").stdout
    answered(valuer("keys", "revoke", made["id"], "--json"))
    assert answered(valuer("keys", "list", "--json"))["keys"][0]["revoked_at"]
    assert isinstance(valuer("keys", "revoke", "none").exception, NotFound)
    assert isinstance(valuer("keys", "create", "RIS").exception, Invalid)  # a system's key names its institution


def test_a_person_gets_a_link_and_can_be_shut_out(valuer: Valuer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    made = answered(valuer("users", "create", "li", "--name", "李医师", "--password-file", str(password), "--json"))
    assert made["link"].startswith("http://127.0.0.1:8087/enter?link=")
    assert answered(valuer("users", "link", "li", "--json"))["link"] != made["link"]
    assert "李医师" in valuer("users", "list").stdout
    answered(valuer("users", "disable", "li", "--json"))
    assert answered(valuer("users", "list", "--json"))["users"][0]["disabled_at"]
    assert isinstance(valuer("users", "link", "wang").exception, NotFound)


def test_the_audit_chain_is_verified_and_exported(valuer: Valuer, tmp_path: Path, database_url: str) -> None:
    valuer("keys", "create", "RIS", "--role", "admin")
    assert answered(valuer("audit", "verify", "--json"))["unsealed"] == 1
    engine = db.connect(database_url)
    with db.transaction(engine) as session:
        audit.seal(session)
    exported = answered(valuer("audit", "export", str(tmp_path / "audit.jsonl"), "--json"))
    assert exported["events"] == 1
    assert json.loads((tmp_path / "audit.jsonl").read_text())["hash"] == exported["head"]
    with db.transaction(engine) as session:
        session.execute(sa.text("ALTER TABLE audit_events DISABLE TRIGGER ALL"))
        session.execute(sa.text("UPDATE audit_events SET actor = 'nobody'"))
    engine.dispose()
    assert isinstance(valuer("audit", "verify").exception, Broken)


def test_rescoring_writes_new_scores_beside_the_old_ones_once(
    valuer: Valuer, database_url: str, keyring: Keyring
) -> None:
    engine = db.connect(database_url)
    with db.transaction(engine) as session:
        institution(session)
        for number in range(3):
            accept(session, keyring, accession=f"A-{number}")
            held = leases.claim(session, "test", QUEUE)
            assert held is not None
            leases.settle_without(session, held, Reason.CRASHED)
            sign_off = sign_offs.sign(session, held.request.id, "右肺上叶结节。", None, DOCTOR)
            if number == 0:
                old = ScoreRow(
                    sign_off_id=sign_off.id, scorer="s0", r1=0.5, r2=0.5, rl=0.5, char_rl=0.5, edit_distance=3
                )
                session.add(old)
    done = answered(valuer("rescore", "--json"))
    assert (done["scored"], done["scorer"]) == (3, SCORER_VERSION)
    assert answered(valuer("score", "rescore", "--json"))["scored"] == 0
    with db.transaction(engine) as session:
        rows = session.execute(sa.text("SELECT scorer, r1 FROM scores ORDER BY scorer, r1")).all()
        session.execute(sa.text("SAVEPOINT before"))
        with pytest.raises(sa.exc.DBAPIError):
            session.execute(sa.text("UPDATE scores SET r1 = 1"))
        session.execute(sa.text("ROLLBACK TO before"))
    engine.dispose()
    assert [tuple(row) for row in rows] == [("s0", 0.5), *[(SCORER_VERSION, 0.0)] * 3]


def test_the_doctor_finds_a_key_file_that_others_can_read(valuer: Valuer, home: Path) -> None:
    result = valuer("doctor", "--json")
    assert isinstance(result.exception, Broken)  # no process runs
    checks = {each["name"]: each["ok"] for each in json.loads(result.stdout.splitlines()[-1])["checks"]}
    assert checks == {
        "disk": True,
        "keys": True,
        "institutions": True,
        "vocabulary": True,
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
    sent = answered(valuer("draft", str(file), "--wait", "0", "--json"))
    assert sent["state"] == "queued"
    assert answered(valuer("status", "--json"))["queue"]["waiting"] == 1
    assert "until a worker runs" in valuer("draft", str(file), "--wait", "0").stdout
    file.write_text(json.dumps(body(sexx=1)), "utf-8")
    refused = valuer("draft", str(file))
    assert isinstance(refused.exception, Invalid)
    assert "sexx" in refused.exception.message


def test_models_are_listed_and_an_unknown_one_is_refused(valuer: Valuer) -> None:
    assert answered(valuer("models", "list", "--json")) == {"models": []}
    assert isinstance(valuer("models", "promote", "none").exception, NotFound)
    assert isinstance(valuer("models", "rollback").exception, Refused)


def test_a_training_run_is_queued_listed_and_cancelled(valuer: Valuer) -> None:
    run = answered(valuer("train", "start", "--profile", "smoke", "--json"))["run"]
    assert [(each["run"], each["state"]) for each in answered(valuer("train", "list", "--json"))["runs"]] == [
        (run, "queued")
    ]
    assert answered(valuer("train", "cancel", run, "--json"))["state"] == "cancelled"
    followed = valuer("train", "follow", run)
    assert isinstance(followed.exception, Broken)
    assert isinstance(valuer("train", "start", "--profile", "none").exception, Refused)


def test_nothing_to_train_on_is_said_before_anything_starts(valuer: Valuer) -> None:
    for command in (("dataset", "build"), ("train", "--dry-run"), ("train", "start", "--dry-run")):
        result = valuer(*command)
        assert isinstance(result.exception, Refused)
        assert "no signed report" in result.exception.message
    assert answered(valuer("dataset", "list", "--json")) == {"datasets": []}
    assert isinstance(valuer("dataset", "show", "none").exception, NotFound)
    assert isinstance(valuer("evaluate", "run", "none").exception, NotFound)


def test_ingest_without_institutions_reads_nothing(valuer: Valuer) -> None:
    assert answered(valuer("ingest", "run", "--json")) == {"institutions": []}
    assert answered(valuer("ingest", "quarantine", "list", "--json")) == {"rows": []}
    assert isinstance(valuer("ingest", "run", "nowhere").exception, NotFound)


def test_down_and_migrate_where_nothing_runs(valuer: Valuer) -> None:
    assert answered(valuer("down", "--json")) == {"stopped": []}
    assert answered(valuer("migrate", "--json"))["changed"] is False


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
    found = answered(valuer("keys", "callback-secret", "north", "--json"))
    assert found["secret"] == callbacks.secret(Keyring.load(home / "master.key"), "north")
    assert isinstance(valuer("keys", "callback-secret", "nowhere").exception, NotFound)


def test_a_persons_token_lets_a_script_act_as_them_until_they_are_disabled(valuer: Valuer, database: sa.Engine) -> None:
    assert valuer("users", "create", "lin", "--name", "Lin").exit_code == 0
    token = answered(valuer("users", "token", "lin", "--json"))["token"]
    with db.transaction(database) as session:
        caller = access.by_token(session, token)
        assert caller is not None
        assert (caller.actor.kind, caller.name) == ("user", "Lin")
    assert valuer("users", "disable", "lin").exit_code == 0
    with db.transaction(database) as session:
        assert access.by_token(session, token) is None


def test_a_stage_is_set_in_the_file_told_to_the_database_and_audited(
    valuer: Valuer, home: Path, database: sa.Engine
) -> None:
    (home / "institutions").mkdir(exist_ok=True)
    (home / "institutions" / "north.toml").write_text('[institution]\ncode = "north"\nname = "North"\n')
    set_to = [
        answered(valuer("institutions", "stage", "north", "CT/chest", to, "--json")) for to in ("collect", "shadow")
    ]
    assert [(each["before"], each["stage"]) for each in set_to] == [("live", "collect"), ("collect", "shadow")]
    (listed,) = answered(valuer("institutions", "list", "--json"))["institutions"]
    assert listed["stages"] == {"CT/chest": "shadow"}
    with db.transaction(database) as session:
        assert institutions.profile(session, "north").stages == {"CT/chest": "shadow"}
        (told,) = session.exec(select(AuditEvent).where(AuditEvent.action == "institution.stages")).all()
    assert told.actor.startswith("process:cli:")
    assert told.detail["after"] == {"CT/chest": "shadow"}
