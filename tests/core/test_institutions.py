"""Institution files are validated when loaded, with messages that point at the line."""

from datetime import date
from pathlib import Path

import pytest
from sqlmodel import Session, select

from core import institutions
from core.errors import Conflict, Invalid, NotFound
from core.tables import AuditEvent

GOOD = '[institution]\ncode = "north"\nname = "North hospital"\nlanguage = "zh-Hant"\ncallback_hosts = ["ris.north"]\n'


def test_a_file_becomes_a_profile_that_the_database_keeps(tmp_path: Path, session: Session) -> None:
    (tmp_path / "north.toml").write_text(GOOD)
    institutions.sync(session, institutions.load_profiles(tmp_path))
    session.flush()
    assert institutions.profile(session, "north").callback_hosts == ("ris.north",)
    with pytest.raises(NotFound):
        institutions.profile(session, "south")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[other]\n", r"north\.toml:1: there is no \[institution\]"),
        (GOOD + "intakes = true\n", r"north\.toml:6: .*no setting called intakes"),
        (GOOD.replace("zh-Hant", "zh"), r"north\.toml:4: language must be one of"),
        (GOOD.replace('["ris.north"]', '"ris.north"'), r"north\.toml:5: callback_hosts must be a list"),
        (GOOD.replace('"north"', '"North 1"', 1), r"north\.toml:2: code must be"),
        ("[institution]\ncode = \n", r"north\.toml: .*line 2"),
        (GOOD + 'role_from = "next year"\n', r"north\.toml:6: role_from must be a date such as 2026-01-01"),
        (GOOD + "[institution.gate]\nfloor_rl = true\n", r"north\.toml:7: \[institution\.gate\] takes a number"),
        (GOOD + "[institution.gate]\nfloor = 0.5\n", r"north\.toml:7: .*floor_rl, floor_fact_f1, p95_s"),
        (GOOD + 'roll = "train"\n', r"north\.toml:6: .*no setting called roll; did you mean role\?"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "north.toml").write_text(text)
    with pytest.raises(Invalid, match=told):
        institutions.load_profiles(tmp_path)


def test_two_files_of_one_code_are_refused(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(Invalid, match=r"b\.toml.*taken"):
        institutions.load_profiles(tmp_path)


def test_a_role_may_change_from_a_day_on(tmp_path: Path, session: Session) -> None:
    (tmp_path / "north.toml").write_text(GOOD + 'role = "train"\nrole_from = 2026-03-01\n')
    institutions.sync(session, institutions.load_profiles(tmp_path))
    session.flush()
    assert institutions.roles(session, date(2026, 2, 28)) == {"north": "test"}
    assert institutions.roles(session, date(2026, 3, 1)) == {"north": "train"}


def test_stages_are_read_checked_and_audited_when_they_change(tmp_path: Path, session: Session) -> None:
    stages = '\n[institution.stages]\n"*" = "shadow"\n"CT/chest" = "live"\n'
    (tmp_path / "north.toml").write_text(GOOD)
    institutions.sync(session, institutions.load_profiles(tmp_path))
    (tmp_path / "north.toml").write_text(GOOD + stages)
    institutions.sync(session, institutions.load_profiles(tmp_path))
    session.flush()
    assert institutions.profile(session, "north").stages == {"*": "shadow", "CT/chest": "live"}
    (told,) = session.exec(select(AuditEvent).where(AuditEvent.action == "institution.stages")).all()
    assert told.detail == {"before": {}, "after": {"*": "shadow", "CT/chest": "live"}}
    (tmp_path / "north.toml").write_text(GOOD + stages.replace("CT/chest", "CT/spleen"))
    with pytest.raises(Invalid, match=r"north\.toml:9: CT/spleen must be"):
        institutions.load_profiles(tmp_path)
    (tmp_path / "north.toml").write_text(GOOD + "hold_back = 0.2\n")
    with pytest.raises(Invalid, match=r"hold_back must be between 0 and 0\.05"):
        institutions.load_profiles(tmp_path)


STAGED = (
    GOOD
    + """
[institution.stages]      # the department's decision of May
"*" = "collect"           # until told otherwise
"CT/chest" = "shadow"     # Dr Lin looks

[source]
url_env = "NORTH_URL"
"""
)


def test_a_stage_is_one_line_of_the_file_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "north.toml"
    file.write_text(STAGED)
    before, profile = institutions.set_stage(tmp_path, "north", "CT/chest", "live")
    assert (before, profile.stages) == ("shadow", {"*": "collect", "CT/chest": "live"})
    assert file.read_text() == STAGED.replace('"CT/chest" = "shadow"', '"CT/chest" = "live"')
    institutions.set_stage(tmp_path, "north", "MR", "shadow")
    assert institutions.load_profiles(tmp_path)["north"].stages == {"*": "collect", "CT/chest": "live", "MR": "shadow"}
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_without_stages_gets_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "north.toml").write_text(GOOD)
    assert institutions.set_stage(tmp_path, "north", "*", "shadow")[0] == "live"
    assert institutions.load_profiles(tmp_path)["north"].stages == {"*": "shadow"}


def test_a_stage_that_cannot_be_set_changes_nothing(tmp_path: Path) -> None:
    inline = GOOD + 'stages = { "*" = "shadow" }\n'
    for text, code, key, to, error in (
        (STAGED, "north", "MR", "live", Conflict),
        (STAGED, "north", "CT/spleen", "shadow", Invalid),
        (STAGED, "north", "CT", "on", Invalid),
        (STAGED, "south", "CT", "shadow", NotFound),
        (inline, "north", "CT", "collect", Invalid),
    ):
        (tmp_path / "north.toml").write_text(text)
        with pytest.raises(error):
            institutions.set_stage(tmp_path, code, key, to)
        assert (tmp_path / "north.toml").read_text() == text
