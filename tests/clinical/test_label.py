"""A label that stayed in a signed text is known again, in every language that a draft is labelled in."""

import pytest

from clinical.label import left_over
from core.requests import LABELS


@pytest.mark.parametrize("language", LABELS)
def test_every_label_is_known_again(language: str) -> None:
    for text in (LABELS[language], LABELS[language].upper()):
        assert left_over(f"1. {text}\n2. 结节"), text


@pytest.mark.parametrize("half", ["AI草稿", "须医师审核", "須醫師審核", "Brouillon IA", "à relire par un médecin"])
def test_so_is_a_half_of_it(half: str) -> None:
    assert left_over(f"结节。{half}")


def test_a_report_about_a_draft_of_air_carries_no_label() -> None:
    for text in ("建议医师审核", "AI 辅助", "Drafted by hand, reviewed", "brouillon", ""):
        assert not left_over(text)
