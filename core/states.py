"""Every state with one sentence, and the legal moves between them. docs/states.md is generated from this file.

Settled requests have an answer for the radiologist; closed ones need none any more. Every request settles.
"""

from enum import StrEnum


class _Told(StrEnum):
    """An enum whose members carry the sentence that explains them."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> "_Told":
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class RequestState(_Told):
    """Where a draft request stands."""

    QUEUED = "queued", "Accepted and waiting for a worker."
    DRAFTING = "drafting", "A worker holds its lease and is writing."
    DRAFTED = "drafted", "A checked draft waits for the radiologist."
    WITHHELD = "withheld", "No draft is shown, and the reason says why."
    NEEDS_HUMAN = "needs_human", "It failed three times; the radiologist writes without us and an operator looks."
    SIGNED = "signed", "A person has signed an impression."
    SUPERSEDED = "superseded", "Changed findings replaced it by a linked newer request."
    CANCELLED = "cancelled", "The reporting system took it back."


class Reason(_Told):
    """Why there is no draft."""

    NO_MODEL = "no_model", "No model is active for this institution."
    TOO_LONG = "too_long", "The findings do not fit the model's input."
    OUT_OF_SCOPE = "out_of_scope", "The active model has not been evaluated for examinations like this."
    CHECKS_FAILED = "checks_failed", "No generation passed the checks."
    HELD_BACK = "held_back", "The draft is hidden until signing, to measure without its influence."
    DEADLINE = "deadline", "The model did not finish in time."
    CRASHED = "crashed", "The worker died three times on this request."


class AttemptState(_Told):
    """How one lease of a request ended."""

    RUNNING = "running", "The lease is held and its heartbeat is fresh."
    FINISHED = "finished", "It wrote the request's answer."
    RETRIED = "retried", "It failed for a passing reason and was put back."
    CRASHED = "crashed", "Its lease ran out without a word."
    DISCARDED = "discarded", "Its answer came too late and was thrown away."


class RunState(_Told):
    """Where a training run stands."""

    QUEUED = "queued", "Waiting for a training worker."
    RUNNING = "running", "A training worker is on it."
    DONE = "done", "It registered a model version."
    FAILED = "failed", "It ended with an error that its row names."
    CANCELLED = "cancelled", "A person stopped it; what was saved can be resumed."


class ReportStatus(_Told):
    """What an institution says of a report, from weakest to strongest; a stronger one is never overwritten by a late weaker one."""

    PRELIMINARY = "preliminary", "Written but not verified."
    UNSIGNED = "unsigned", "Released once, and opened again by its author."
    FINAL = "final", "Verified and released."
    AMENDED = "amended", "Changed or completed after release."
    RETRACTED = "retracted", "Taken back by the institution."


SETTLED = frozenset({RequestState.DRAFTED, RequestState.WITHHELD, RequestState.NEEDS_HUMAN})
CLOSED = frozenset({RequestState.SIGNED, RequestState.SUPERSEDED, RequestState.CANCELLED})
UNCLOSED = frozenset(RequestState) - CLOSED

MOVES: dict[RequestState, frozenset[RequestState]] = {
    RequestState.QUEUED: frozenset({RequestState.DRAFTING, RequestState.WITHHELD, RequestState.NEEDS_HUMAN}) | CLOSED,
    RequestState.DRAFTING: frozenset({RequestState.QUEUED}) | SETTLED | CLOSED,
    RequestState.DRAFTED: frozenset({RequestState.QUEUED}) | CLOSED,
    RequestState.WITHHELD: frozenset({RequestState.QUEUED}) | CLOSED,
    RequestState.NEEDS_HUMAN: frozenset({RequestState.QUEUED}) | CLOSED,
    RequestState.SIGNED: frozenset({RequestState.DRAFTED, RequestState.WITHHELD, RequestState.QUEUED}),  # reopen
    RequestState.SUPERSEDED: frozenset(),
    RequestState.CANCELLED: frozenset(),
}
"""The moves that core.db.move allows; every other one is a bug and raises."""
