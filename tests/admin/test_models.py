"""Promotion, rollback and removal from the command line, by somebody who knows the commands only: planted evaluations, the real gate and registry."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select
from typer.testing import Result

from core import registry
from core.db import transaction
from core.errors import Broken, Conflict, Refused
from core.tables import ActiveModel, AuditEvent, Draft, Promotion
from tests import builders
from tests.admin.conftest import Valuer, answered
from tests.core.test_requests import drafted
from tests.training import planted
from training import collection, runs

SOUND = planted.evaluation(lambda _: 0.0)


@pytest.fixture
def data(database: sa.Engine) -> str:
    """The training set that everything is measured on, and the hospitals of its reports."""
    with transaction(database) as session:
        for house in planted.HOSPITALS:
            builders.institution(session, house)
        return planted.dataset(session)


@pytest.fixture
def old(database: sa.Engine, home: Path, data: str) -> str:
    """A version that serves everybody."""
    with transaction(database) as session:
        planted.evaluated(session, planted.version(session, home, "old"), data, SOUND)
        registry.promote(session, "old", "user:boss", gate={})
    return "old"


def candidate(database: sa.Engine, home: Path, data: str, shift: planted.Shift, *, seed: int = 2) -> Path:
    with transaction(database) as session:
        row = planted.version(session, home, "new")
        planted.evaluated(session, row, data, planted.evaluation(shift, seed=seed))
        return Path(row.path)


def serves(database: sa.Engine, institution: str = "*") -> str | None:
    with transaction(database) as session:
        return session.exec(select(ActiveModel.model_version).where(ActiveModel.institution == institution)).first()


def told(result: Result, error: type[Exception]) -> str:
    """The sentence with which a command was refused."""
    assert isinstance(result.exception, error), result.output
    return str(getattr(result.exception, "message", ""))


def held_by(result: Result) -> set[str]:
    told(result, Refused)
    return {line.split()[1].rstrip(":") for line in result.stdout.splitlines() if line.startswith("NO ")}


@pytest.mark.parametrize(
    ("shift", "held"),
    [
        (lambda _: -0.05, {"facts", "overall", "stratum"}),
        (lambda house: -0.06 if house == "west" else 0.06, {"stratum"}),
    ],
    ids=["worse", "better on average and worse at one hospital"],
)
def test_the_gate_holds_and_says_which_rule(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str, shift: planted.Shift, held: set[str]
) -> None:
    candidate(database, home, data, shift)
    result = valuer("models", "promote", "new")
    assert held_by(result) == held
    assert "nothing was changed" in told(result, Refused)
    assert serves(database) == old


def test_a_better_version_serves_and_one_command_goes_back(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str
) -> None:
    candidate(database, home, data, lambda _: 0.03)
    assert answered(valuer("models", "promote", "new", "--dry-run", "--json"))["promoted"] is False
    assert serves(database) == old
    promoted = answered(valuer("models", "promote", "new", "--json"))
    assert (promoted["promoted"], promoted["previous"], promoted["verdict"]) == (True, "old", "promote")
    assert serves(database) == "new"
    assert answered(valuer("models", "rollback", "--json"))["version"] == "old"
    assert serves(database) == old
    assert "no earlier version" in told(valuer("models", "rollback"), Conflict)


def test_an_equal_version_needs_a_reason(valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str) -> None:
    candidate(database, home, data, lambda _: 0.0, seed=1)
    assert held_by(valuer("models", "promote", "new")) == {"facts"}
    assert answered(valuer("models", "promote", "new", "--reason", "a freer licence", "--json"))["promoted"]


def test_the_first_version_must_beat_copying_and_the_nearest_report_in_every_stratum(
    valuer: Valuer, database: sa.Engine, home: Path, data: str
) -> None:
    candidate(database, home, data, lambda _: 0.1)
    assert held_by(valuer("models", "promote", "new")) == {"first"}  # the baselines were not measured
    with transaction(database) as session:
        planted.baseline(session, "copy", data, planted.evaluation(lambda _: -0.3))
        planted.baseline(session, "nearest", data, planted.evaluation(lambda house: 0.2 if house == "west" else 0.0))
    result = valuer("models", "promote", "new")
    [line] = [each for each in result.stdout.splitlines() if each.startswith("NO ")]
    assert line.startswith("NO   first: west × chest × CT: ROUGE-L")
    assert "against nearest" in line
    assert serves(database) is None
    assert answered(valuer("models", "promote", "new", "--institution", "north", "--json"))["promoted"]
    assert (serves(database, "north"), serves(database)) == ("new", None)


def test_force_needs_a_reason_and_leaves_one_on_record(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str
) -> None:
    candidate(database, home, data, lambda _: -0.05)
    assert "needs a --reason" in told(valuer("models", "promote", "new", "--force"), Refused)
    assert serves(database) == old
    answered(valuer("models", "promote", "new", "--force", "--reason", "old is withdrawn", "--json"))
    with transaction(database) as session:
        event = session.exec(
            select(AuditEvent).where(AuditEvent.action == "model.promoted", AuditEvent.subject == "model:new")
        ).one()
        assert (event.detail["forced"], event.detail["reason"]) == (True, "old is withdrawn")


@pytest.mark.parametrize("also_manifest", [False, True], ids=["a file", "a file and the manifest that names its hash"])
def test_an_artefact_that_was_changed_after_its_evaluation_is_not_promoted(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str, also_manifest: bool
) -> None:
    folder = candidate(database, home, data, lambda _: 0.03)
    (folder / "adapter_model.safetensors").write_bytes(b"other")
    if also_manifest:
        import hashlib

        text = (folder / "manifest.json").read_text("utf-8")
        (folder / "manifest.json").write_text(
            text.replace(hashlib.sha256(b"new").hexdigest(), hashlib.sha256(b"other").hexdigest()), "utf-8"
        )
    sentence = told(valuer("models", "promote", "new", "--force", "--reason", "x"), Broken)
    assert "is not what its manifest says" in sentence or "is not the one that was registered" in sentence
    assert serves(database) == old


def test_a_rollback_to_files_that_are_gone_is_refused_and_what_serves_goes_on(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str
) -> None:
    candidate(database, home, data, lambda _: 0.03)
    answered(valuer("models", "promote", "new", "--json"))
    (home / "models" / "old" / "adapter_model.safetensors").unlink()
    assert told(valuer("models", "rollback"), Conflict).startswith("old cannot serve again: old lacks its file")
    assert serves(database) == "new"


def test_promotion_and_rollback_at_once_happen_one_after_the_other(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str
) -> None:
    candidate(database, home, data, lambda _: 0.03)
    answered(valuer("models", "promote", "new", "--json"))
    with transaction(database) as session:
        planted.evaluated(
            session, planted.version(session, home, "next"), data, planted.evaluation(lambda _: 0.06, seed=3)
        )
    with transaction(database) as session:
        registry.hold_still(session, "*")  # both wait here, and then go in one order or the other
        both = [_begun("promote", "next"), _begun("rollback")]
        _until(lambda: _waiting(database) == 2)
    assert [one.wait(60) for one in both] == [0, 0]
    with transaction(database) as session:
        moves = session.exec(select(Promotion).where(Promotion.kind != "held").order_by(sa.text("at"))).all()
    chain = [(row.previous, row.model_version) for row in moves]
    assert chain in (
        [(None, "old"), ("old", "new"), ("new", "next"), ("next", "new")],
        [(None, "old"), ("old", "new"), ("new", "old"), ("old", "next")],
    )
    assert serves(database) == chain[-1][1]


def test_a_promotion_that_is_killed_in_the_middle_has_not_happened(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, old: str
) -> None:
    candidate(database, home, data, lambda _: 0.03)
    with transaction(database) as session:
        before = len(session.exec(select(Promotion)).all())
    with database.connect() as blocker, blocker.begin():
        blocker.execute(sa.text("LOCK TABLE audit_events IN SHARE MODE"))  # the last thing that a promotion writes
        process = _begun("promote", "new")
        try:
            _until(lambda: _waiting(database) == 1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    _until(lambda: _waiting(database) == 0)
    assert serves(database) == old
    with transaction(database) as session:
        assert len(session.exec(select(Promotion)).all()) == before
    assert answered(valuer("models", "promote", "new", "--json"))["previous"] == "old"


def test_removal_leaves_what_serves_what_an_institution_pinned_what_drafted_and_what_a_run_goes_on_from(
    valuer: Valuer, database: sa.Engine, home: Path, data: str, keyring: Any
) -> None:
    names = [f"v{number}" for number in range(12)]
    for name in names:
        with transaction(database) as session:  # created_at is the transaction's
            planted.version(session, home, name)
    with transaction(database) as session:
        registry.promote(session, "v0", "user:boss", gate={})
        registry.promote(session, "v1", "user:boss", "north", gate={})
        builders.accept(session, keyring)
        drafted(session)
        session.execute(sa.update(Draft).values(model_version="v2"))
        runs.start(session, "smoke", runs.Options(continued_from="v3"), "user:boss")
    newest = names[-collection.NEWEST :]
    found = answered(valuer("models", "gc", "--json"))
    assert found["versions"] == sorted(set(names) - {"v0", "v1", "v2", "v3", *newest})
    assert found["removed"] is False
    assert (home / "models" / "v4").exists()
    answered(valuer("models", "gc", "--yes", "--json"))
    assert sorted(path.name for path in (home / "models").iterdir()) == sorted(["v0", "v1", "v2", "v3", *newest])
    assert "were removed" in told(valuer("models", "promote", "v4"), Conflict)


def _waiting(database: sa.Engine) -> int:
    """Commands that wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def _begun(*what: str) -> subprocess.Popen[bytes]:
    """`valuer models …` in a process of its own."""
    command = [sys.executable, "-m", "admin.main", "models", *what]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _until(so: Any, patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)
