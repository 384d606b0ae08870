"""The commands about what was read: the paper's Table 1, and fixing a mapping for rows in quarantine."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from admin import stats
from admin.main import app
from core import db, institutions
from tests.ingest.hospital import Hospital


@pytest.fixture
def valuer(north: Hospital, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command on this test's home and database."""
    monkeypatch.setenv("VALUER_HOME", str(north.settings.home))
    monkeypatch.setenv("VALUER_DATABASE_URL", north.ours.url.render_as_string(hide_password=False))
    monkeypatch.setenv("VALUER_BROKER_URL", "redis://127.0.0.1:1/0")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["ingest", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else done.stdout

    return run


def test_stats_are_the_papers_table_1(north: Hospital, valuer: Callable[..., Any]) -> None:
    parts = ("胸部", "头颅", "腹部", "膝关节", "颈部")
    for number in range(40):
        north.write(
            number, sex="FM"[number % 2], age=str(number), part=parts[number % 5], dev="CT" if number % 4 else "DR"
        )
    north.write(40, st="0")
    assert north.poll().stored == 41
    found = valuer("stats", "--json")
    assert sum(row["reports"] for row in found["institutions"]) == found["all"]["reports"] == 40
    assert (found["all"]["sex"], found["all"]["age"]) == ({"F": 20, "M": 20}, [0, 39])
    assert found["all"]["modality"] == {"CT": 30, "XR": 10}
    assert found["all"]["kept_out"] == {"preliminary": 1}
    assert {row["role"] for row in found["institutions"]} == {"test"}
    shown = valuer("stats")
    assert "north train" not in shown
    with db.transaction(north.ours) as session:
        institutions.sync(session, {"north": institutions.Profile(code="north", name="North", role="train")})
    shown = valuer("stats")
    assert shown.index("north train") < shown.index("north test") < shown.index("all")
    lines = {line.split("  ")[0].strip(): line.split() for line in shown.splitlines() if line.strip()}
    assert lines["reports"][-1] == "40"
    assert lines["female / male"][-3:] == ["20", "/", "20"]
    assert lines["maxillofacial & neck"][-1] == "8"
    assert {title for title, _, _ in stats.LINES} <= lines.keys()


def test_a_code_is_fixed_and_the_rows_that_waited_for_it_are_taken(north: Hospital, valuer: Callable[..., Any]) -> None:
    for number in range(6):
        north.write(number, st="7" if number < 4 else "1", sex="X" if number == 5 else "F")
    assert north.poll().quarantined == 5
    counted = {row["reason"]: row["rows"] for row in valuer("quarantine", "counts", "--json")["reasons"]}
    assert counted == {"unknown_status": 4, "unknown_sex": 1}
    waiting = valuer("quarantine", "list", "--reason", "unknown_status", "--json")["rows"]
    assert valuer("quarantine", "show", waiting[0]["id"], "--json")["content"]["status"] == "7"
    north.describe(**{"7": "final"})
    tried = valuer("quarantine", "replay", "--dry-run", "--json")
    assert (tried["taken"], tried["left"], tried["reasons"]) == (4, 1, {"unknown_sex": 1})
    assert len(north.reports()) == 1
    done = valuer("quarantine", "replay", "--reason", "unknown_status", "--json")
    assert (done["taken"], done["left"]) == (4, 0)
    assert len(north.reports()) == 5
    assert "1 unknown_sex" in valuer("quarantine", "replay", "--institution", "north")
