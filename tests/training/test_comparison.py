"""What a profile would leave out and take is what training then does."""

from pathlib import Path

import pytest
from sqlmodel import Session
from transformers import AutoTokenizer

from clinical.case import ClinicalInput, Modality, System
from tests.training import planted
from training import comparison
from training.dataset import Case
from training.embeddings import short
from training.examples import examples
from training.profiles import PAPER, RECOMMENDED, profile
from training.qlora import total_steps
from training.stages import parts


def cases(count: int) -> list[Case]:
    """Every tenth is longer than 512 bytes."""
    return [
        Case(
            f"case-{number}",
            ClinicalInput(
                "north", "肝右叶见囊性灶，边界清。" * (20 if number % 10 == 0 else 1), Modality.CT, (System.ABDOMEN,)
            ),
            "肝囊肿。",
        )
        for number in range(count)
    ]


def test_a_course_counts_what_training_leaves_out_and_takes(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    recipe = profile("recommended", max_tokens=512, batch=8, epochs=2)
    made = comparison.course(tokenizer, recipe, cases(100), pace=100.0)
    fitting, too_long = examples(tokenizer, recipe, cases(100))
    assert (made.reports, made.too_long, made.excluded, made.aside) == (100, too_long, 0.1, 0)
    assert (made.updates, made.first) == (total_steps(recipe, len(fitting)), 0)
    assert made.tokens == 2 * sum(map(len, fitting))
    assert made.p50 < 512 < made.longest
    assert made.hours == pytest.approx(made.tokens / 100 / 3600)
    assert comparison.course(tokenizer, RECOMMENDED, cases(100), pace=None).too_long == 0
    assert comparison.course(tokenizer, RECOMMENDED, cases(100), pace=None).hours is None


def test_the_papers_earlier_steps_take_their_reports_and_updates(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    some = cases(100)
    made = comparison.course(tokenizer, PAPER, some, pace=None)
    divided = parts(some, PAPER)
    assert (made.reports, made.aside) == (len(divided.rest), 100 - len(divided.rest))
    assert made.first == 6  # the embeddings and five templates, ten reports each
    assert total_steps(short(PAPER), PAPER.embedding_examples) == 64  # as SILENT says
    assert total_steps(short(PAPER), PAPER.selection_examples) == 64


def test_without_a_run_on_the_base_nobody_knows_how_fast_this_machine_is(session: Session, tmp_path: Path) -> None:
    planted.version(session, tmp_path, "foreign")  # came from elsewhere: no run here made it
    assert comparison.pace(session, "base") is None
