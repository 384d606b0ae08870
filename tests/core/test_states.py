"""The table of moves, and the page that is made from it."""

import pytest

from admin import states_doc
from core.states import CLOSED, MOVES, SETTLED, UNCLOSED, AttemptState, Reason, ReportStatus, RequestState, RunState


def test_the_page_in_docs_is_what_the_states_say() -> None:
    assert states_doc.TARGET.read_text("utf-8") == states_doc.render(), "run: python -m admin.states_doc"


@pytest.mark.parametrize("kind", [RequestState, Reason, AttemptState, RunState, ReportStatus])
def test_every_value_is_explained_by_a_sentence(kind: type[RequestState]) -> None:
    assert all(member.sentence.endswith(".") and member.sentence[0].isupper() for member in kind)


def test_every_state_is_in_exactly_one_of_open_settled_and_closed() -> None:
    working = {RequestState.QUEUED, RequestState.DRAFTING}
    assert working | SETTLED | CLOSED == set(RequestState)
    assert working | SETTLED == UNCLOSED
    assert not SETTLED & CLOSED


def test_any_unclosed_request_may_be_signed_superseded_or_cancelled() -> None:
    assert all(MOVES[state] >= CLOSED for state in UNCLOSED)


def test_only_a_signed_request_leaves_the_closed_states_and_only_by_reopening() -> None:
    assert {state for state in CLOSED if MOVES[state]} == {RequestState.SIGNED}
    assert MOVES[RequestState.SIGNED] <= UNCLOSED


def test_a_settled_request_goes_back_to_the_queue_and_to_nowhere_else_that_is_open() -> None:
    assert all(MOVES[state] & UNCLOSED == {RequestState.QUEUED} for state in SETTLED)


def test_only_a_worker_that_holds_a_lease_makes_a_draft_visible() -> None:
    makers = {state for state in UNCLOSED if RequestState.DRAFTED in MOVES[state]}
    assert makers == {RequestState.DRAFTING}
