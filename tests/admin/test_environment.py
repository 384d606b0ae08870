"""`.env.example` is the list of every setting."""

import re
from pathlib import Path

from core import settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def test_the_example_lists_every_setting_with_its_default_and_what_it_means() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    listed = {
        match[1]: (match[2], lines[number - 1].removeprefix("# "))
        for number, line in enumerate(lines)
        if (match := re.fullmatch(r"#? ?(VALUER_\w+)=(.*)", line))
    }
    known = {
        f"VALUER_{name.upper()}": ("" if field.default is None else str(field.default), field.description)
        for kind in settings.ALL
        for name, field in kind.model_fields.items()
    }
    assert listed == known
