"""Institution files are validated when loaded, with messages that point at the line."""

from pathlib import Path

import pytest
from sqlmodel import Session

from core import institutions
from core.errors import Invalid, NotFound

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
