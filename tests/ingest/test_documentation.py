"""docs/institutions.md is true: its examples load, and it names every setting and every word."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from core import institutions
from ingest import mapping, origin

TEXT = (Path(__file__).parents[2] / "docs" / "institutions.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.search(r'code = "(\w+)"', text)[1])  # type: ignore[index]
def test_an_example_is_an_institution_file(example: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(example, "utf-8")
    (code,) = institutions.load_profiles(tmp_path)
    assert mapping.load(tmp_path / "a.toml").code == code


def test_there_is_an_example_of_each_shape() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize(
    "settings",
    [origin.SqlConfig, origin.FileConfig, mapping.CursorConfig, mapping.BackfillConfig, mapping.SystemRule],
)
def test_every_setting_is_explained(settings: type[BaseModel]) -> None:
    assert {name for name in settings.model_fields if f"`{name}`" not in TEXT} == set()
    assert {f"codes.{name}" for name in mapping.Codes.model_fields if f"`[codes.{name}]`" not in TEXT} == set()


def test_every_word_is_explained() -> None:
    assert {word for word in origin.WORDS if f"`{word}`" not in TEXT} == set()
