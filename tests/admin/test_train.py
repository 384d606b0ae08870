"""Training sets and schedules from the command line."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core.db import transaction
from core.errors import NotFound, Refused
from core.identity import Keyring
from core.tables import Dataset, TrainingSchedule
from tests import builders
from tests.admin.conftest import Valuer, answered
from tests.training.conftest import tiny_base as tiny_base  # a fixture
from tests.training.test_dataset import report, sign_off

TYPES = ("结节", "积液", "气胸", "肺炎", "骨折", "钙化", "肺不张", "肺气肿")


@pytest.fixture
def signed(database: sa.Engine) -> sa.Engine:
    """Two hundred and fifty human texts."""
    with transaction(database) as session:
        builders.institution(session, "north", role="train")
        for number in range(250):
            report(session, number, impression=f"右肺{TYPES[number % 8]}，大小约{number}mm，考虑炎症可能。")
    return database


def test_a_dry_run_shows_the_card_with_its_guards_and_freezes_nothing(valuer: Valuer, signed: sa.Engine) -> None:
    told = answered(valuer("dataset", "build", "--dry-run", "--json"))
    assert told["train"]["reports"] == 250
    assert len(told["variety"]) == 6
    assert all(guard["share"] == 1.0 and not guard["judged"] for guard in told["variety"])
    assert told["refused"] is None
    shown = valuer("dataset", "build", "--dry-run").stdout
    assert "What trains against what people write" in shown
    with transaction(signed) as session:
        assert session.exec(select(Dataset)).all() == []


def test_a_set_that_says_less_than_people_is_refused_with_a_way_out_that_works(
    valuer: Valuer, signed: sa.Engine, keyring: Keyring
) -> None:
    with transaction(signed) as session:
        flat = [report(session, number, impression="双肺结节。") for number in range(1000, 1250)]
        shaped = sign_off(session, keyring, 1, "heavy_edit", place="ris", of=flat[0])
        values = shaped.model_dump(exclude={"id", "report_id", "version"})
        for number, row in enumerate(flat[1:], 2):
            session.add(type(shaped)(**values, report_id=row.id, version=number))
    assert "says less than people do" in str(answered(valuer("dataset", "build", "--dry-run", "--json"))["refused"])
    refused = valuer("dataset", "build")
    assert isinstance(refused.exception, Refused)
    assert "--exposure unassisted --exposure hold_back" in refused.exception.message
    made = answered(valuer("dataset", "build", "--exposure", "unassisted", "--exposure", "hold_back", "--json"))
    assert (made["train"], made["left_out"]) == (250, {"exposure_heavy_edit": 250})
    card = valuer("dataset", "show", made["id"]).stdout
    assert "| different words |" in card


def test_a_schedule_is_made_shown_due_and_forgotten(valuer: Valuer, signed: sa.Engine) -> None:
    options = ("--profile", "smoke", "--cron", "0 18 * * 5", "--after", "100", "--on-drift")
    made = answered(valuer("train", "schedule", "set", "nightly", *options, "--json"))
    assert made["when"] == "at 0 18 * * 5, after 100 newly signed reports, on drift"
    with transaction(signed) as session:
        session.execute(sa.update(TrainingSchedule).values(created_at=sa.func.now() - sa.text("interval '1 day'")))
    [row] = answered(valuer("train", "schedule", "list", "--json"))["schedules"]
    assert row["due"] == "250 newly signed reports"
    told = answered(valuer("train", "schedule", "set", "nightly", "--profile", "smoke", "--dry-run", "--json"))
    assert told["new"] == {"north × chest": 250}
    assert told["blockers"] == ["no training worker runs: `valuer up` starts one"]
    answered(valuer("train", "schedule", "remove", "nightly", "--json"))
    assert isinstance(valuer("train", "schedule", "remove", "nightly").exception, NotFound)
    assert isinstance(valuer("train", "schedule", "set", "x", "--cron", "at night").exception, Refused)


def test_what_profiles_leave_out_and_take_is_compared_on_one_set(
    valuer: Valuer, signed: sa.Engine, tiny_base: Path
) -> None:
    made = answered(valuer("dataset", "build", "--json"))
    told = answered(valuer("train", "compare", "--model", str(tiny_base), "--json"))
    assert told["dataset"] == made["id"]
    paper, recommended = told["courses"]
    assert (paper["profile"], paper["max_tokens"], recommended["max_tokens"]) == ("paper", 512, 2048)
    assert (paper["reports"] + paper["aside"], recommended["reports"], recommended["aside"]) == (250, 250, 0)
    assert paper["excluded"] == recommended["excluded"] == 0.0
    assert (paper["hours"], recommended["hours"]) == (None, None)
    assert json.dumps(told["pace"]) == json.dumps({str(tiny_base): "no run yet, so no hours"})
    shown = valuer("train", "compare", "--model", str(tiny_base)).stdout
    assert "Quality is not compared here" in shown
