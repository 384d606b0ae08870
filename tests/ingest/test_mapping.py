"""An institution file that is wrong is refused when it is loaded, with the file, the line and what to change."""

from pathlib import Path

import pytest

from core.errors import Invalid
from ingest import mapping

GOOD = """[institution]
code = "north"
name = "North"

[source]
kind = "sql"
url = "postgresql://reader@his.example/ris"
timezone = "Asia/Shanghai"
sql = '''
SELECT id AS source_id, state AS status FROM v
'''

[codes.status]
F = "final"
P = "preliminary"

[codes.sex]
1 = "M"

[[system_rules]]
field = "part"
pattern = '胸'
systems = ["chest"]

[[system_rules]]
field = "part"
pattern = '腹'
systems = ["abdomen"]
"""


def load(tmp_path: Path, text: str) -> mapping.Mapping:
    path = tmp_path / "north.toml"
    path.write_text(text, "utf-8")
    return mapping.load(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "sql"', 'kind = "sequel"', "north.toml:5: source: "),
        ('"Asia/Shanghai"', '"Asia/Shangrila"', "north.toml:8: source.timezone: Asia/Shangrila is no time zone"),
        ("reader@his", "reader:secret@his", "north.toml:7: source.url: a password may not stand here"),
        (
            "postgresql://reader@his.example/ris",
            "oracle://reader@his/ris",
            "north.toml:7: source.url: oracle is not read yet",
        ),
        ("AS source_id", "AS number", "north.toml:9: source.sql: no column is named source_id"),
        ("SELECT id", "DELETE FROM x; SELECT id", "north.toml:9: source.sql: this must be one SELECT"),
        ('F = "final"', 'F = "finished"', "north.toml:14: codes.status.F: "),
        ('F = "final"\n', "", "north.toml:13: codes.status: no status means final"),
        ('1 = "M"', '1 = "X"', "north.toml:18: codes.sex.1: "),
        ("pattern = '腹'", "pattern = '腹('", "north.toml:27: system_rules.1.pattern: this is no regular expression"),
        ('systems = ["abdomen"]', 'systems = ["tummy"]', "north.toml:28: system_rules.1.systems.0: "),
        ("[codes.sex]", "[codes.gender]", "north.toml:17: codes.gender: Extra inputs are not permitted"),
        ("timezone =", "time_zone =", "north.toml:8: source.time_zone: Extra inputs are not permitted"),
        (
            'url = "postgresql://reader@his.example/ris"\n',
            "",
            "north.toml:5: source: [source] needs either url or url_env",
        ),
        ("[codes.status]", "[codes.status", "north.toml: "),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    load(tmp_path, GOOD)
    assert old in GOOD
    with pytest.raises(Invalid) as refused:
        load(tmp_path, GOOD.replace(old, new))
    assert refused.value.message.startswith(message), refused.value.message


def test_a_file_that_maps_an_unknown_word_is_refused(tmp_path: Path) -> None:
    files = "[source]\nkind = 'files'\nformat = 'csv'\npath = '.'\n[source.columns]\nsource_id = 'a'\nstatus = 'b'\npatient_name = 'c'\n"
    with pytest.raises(Invalid, match=r"^north\.toml:5: source\.columns: we have no word patient_name"):
        load(tmp_path, files + "[codes.status]\n1 = 'final'\n")


def test_passwords_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from file\n")
    by_file = load(tmp_path, GOOD.replace("[source]\n", "[source]\npassword_file = 'secret'\n"))
    assert by_file.address().password == "from file"
    by_name = load(tmp_path, GOOD.replace("[source]\n", "[source]\npassword_env = 'HIS_PASSWORD'\n"))
    with pytest.raises(Invalid, match="the environment variable HIS_PASSWORD is not set"):
        by_name.address()
    monkeypatch.setenv("HIS_PASSWORD", "from environment")
    assert by_name.address().password == "from environment"


def test_a_changed_file_is_another_version(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).version != load(tmp_path, GOOD + "# a note\n").version
