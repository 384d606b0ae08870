"""The commands about stored texts, on a hospital that was read."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from admin.main import app
from core import vocabulary
from tests.ingest.hospital import FINDINGS, Hospital


@pytest.fixture
def valuer(north: Hospital, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("VALUER_HOME", str(north.settings.home))
    monkeypatch.setenv("VALUER_DATABASE_URL", north.ours.url.render_as_string(hide_password=False))
    monkeypatch.setenv("VALUER_BROKER_URL", "redis://127.0.0.1:1/0")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["ingest", *arguments, "--json"], catch_exceptions=False)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_departments_statements_are_taken_out_of_stored_reports_and_counted(
    north: Hospital, valuer: Callable[..., Any]
) -> None:
    for number in range(3):
        north.write(number, yx=f"{FINDINGS}第{number}次检查。本科室存档。以下空白")
    assert north.poll().stored == 3
    assert [(row["term"], row["places"], row["reason"]) for row in valuer("terms")["terms"]] == [
        ("以下空白", 3, "end mark")
    ]
    own = north.settings.home / vocabulary.FOLDER / "north" / vocabulary.PHRASES
    own.parent.mkdir(parents=True)
    own.write_text('[[reason]]\nname = "archive"\ntexts = ["本科室存档"]\n', "utf-8")
    vocabulary._load.cache_clear()  # a command is a process of its own
    assert valuer("reclean")["institutions"] == [{"name": "north", "recleaned": 3, "read_differently": 3}]
    assert {(row["term"], row["places"], row["reason"]) for row in valuer("terms")["terms"]} == {
        ("以下空白", 3, "end mark"),
        ("本科室存档", 3, "archive"),
    }
    assert valuer("reclean")["institutions"] == [{"name": "north", "recleaned": 0, "read_differently": 0}]


def test_duplicates_are_searched_among_what_is_new(north: Hospital, valuer: Callable[..., Any]) -> None:
    for number in range(2):
        north.write(number, yx=f"{FINDINGS}右肾见水样囊影，直径约{number}1mm。")
    north.poll()
    assert valuer("duplicates")["examined"] == 2
    assert valuer("duplicates") == {"examined": 0, "near_duplicates": 0, "duplicates_changed": 0}


def test_status_tells_when_duplicates_were_last_looked_for_and_what_was_found(
    north: Hospital, valuer: Callable[..., Any]
) -> None:
    north.write(1)
    north.poll()
    assert valuer("status")["duplicates"] is None
    valuer("duplicates")
    found = valuer("status")["duplicates"]
    assert (found["examined"], found["waiting"], found["near"], found["exact"]) == (1, 1, 0, 0)
    assert found["began_at"] <= found["ended_at"]
    shown = CliRunner().invoke(app, ["ingest", "status"], catch_exceptions=False, env={"COLUMNS": "200"}).stdout
    assert f"Duplicates, last looked for at {found['began_at'][:16]}: 1 reports" in shown
