"""Accept, change, cancel, regenerate: with core.leases the only writer of requests; core.sign_offs closes them through `close`.

Every door translates into this module and decides nothing itself. Functions run inside the caller's transaction; after its commit the
caller rings the bell (`ring`). Another institution's request does not exist for a caller: the answer is NotFound either way.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import Session, select

from clinical.case import Modality, Sex, System, systems_of
from clinical.checks import has_critical
from clinical.text import findings_hash, normalise
from core import audit, callbacks, institutions, queue
from core.db import bound, inserting, move, new_id
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.identity import SEALED, Keyring, sealed
from core.settings import QueueSettings
from core.states import SETTLED, UNCLOSED, RequestState
from core.tables import (
    AuditEvent,
    DraftRequest,
    Identity,
    Institution,
    RequestEvent,
)

MAX_FINDINGS = 8_000
MAX_IMPRESSION = 8_000
LABELS = {
    "zh-Hans": "AI 草稿，须医师审核",
    "zh-Hant": "AI 草稿，須醫師審核",
    "en": "AI draft, for review by a physician",
    "fr": "Brouillon IA, à relire par un médecin",
}
"""The label that a draft carries beside, never inside, its text."""
EVENTS = ("shown", "opened", "copied", "accepted", "rejected")
_REQUESTS = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class PatientIn(BaseModel):
    """The patient of a request: the number becomes a pseudonym at once; a name has no place here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    id: str = Field(min_length=1, max_length=128)
    sex: Sex | None = None
    age: int | None = Field(None, ge=0, le=150, strict=True)  # neither true nor "61"


class RequestIn(BaseModel):
    """The body of `POST /v1/requests`, of `valuer.intake` and of every other door's request."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    institution: str = Field(min_length=1, max_length=63)
    accession: str = Field(min_length=1, max_length=128)
    modality: Modality
    body_part: str | None = Field(None, max_length=200)
    exam_title: str | None = Field(None, max_length=200)
    patient: PatientIn
    patient_class: str | None = Field(None, max_length=40)
    history: str | None = Field(None, max_length=4_000)
    prior_impression: str | None = Field(None, max_length=MAX_IMPRESSION)
    author: str | None = Field(None, max_length=128)
    language: Literal["zh-Hans", "zh-Hant", "en", "fr"] | None = None
    findings: str
    priority: Literal["stat", "urgent", "routine"] = "routine"
    callback_url: str | None = Field(None, max_length=2_000)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `institution` None means every institution (an administrator or one of our processes)."""

    kind: Literal["key", "user", "process"]
    id: str
    role: str
    institution: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request at the door. `created` is False when the same current one was already there; `rings` says that it waits anew."""

    id: UUID
    state: RequestState
    created: bool
    is_stat: bool
    rings: bool


def parse(payload: Any) -> RequestIn:
    """A validated request. Raises Invalid with one sentence that names the fields, never their values."""
    try:
        return RequestIn.model_validate(payload)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise Invalid(f"The request does not fit: {'; '.join(faults[:5])}.") from None


def usable(text: str, what: str, longest: int) -> None:
    """Refuses what PostgreSQL or a model cannot take whole; nothing is cut or replaced."""
    if len(text) > longest:
        raise Invalid(
            f"The {what} must have at most {longest:,} characters, and these have {len(text):,}.",
            code=f"{what}_too_long",
        )
    if (bad := _NO_TEXT.search(text)) is not None:
        raise Invalid(
            f"The {what} have U+{ord(bad[0]):04X} at position {bad.start()}, which is not text.", code="not_text"
        )
    if not any(character.isalnum() for character in normalise(text).text):
        raise Invalid(f"The {what} must not be empty.", code=f"empty_{what}")


def ring(accepted: Accepted) -> bool:
    """Rings for a request that waits; to be called after the commit. A broker that is away is the clerk's business, not the sender's."""
    if not accepted.rings:
        return True
    return queue.ring("stat" if accepted.is_stat else "routine", accepted.id)


def lock_accession(session: Session, institution: str, accession: str) -> datetime:
    """One decision at a time about an accession; returns when the transaction began, by the database's clock."""
    began: datetime = session.execute(sa.select(sa.func.now(), _lock(_lock_key(institution, accession)))).one()[0]
    return began


def _lock(key: Any) -> sa.ColumnElement[Any]:
    return sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(key, 0))


def _lock_key(institution: str, accession: str) -> str:
    return f"{institution}/{accession}"


def _offset(priority: str, settings: QueueSettings) -> timedelta:
    """How long after its acceptance a request of this priority is due; the claim's order by due time is ageing for free."""
    return timedelta(seconds={"stat": 0.0, "urgent": settings.urgent_offset_s}.get(priority, settings.routine_offset_s))


def close(session: Session, row: DraftRequest, to: RequestState, actor: Actor, **detail: Any) -> bool:
    """Moves an unclosed request to a closed state, taking its lease away; False when it was closed meanwhile."""
    values = {"lease": None, "leased_until": None, "closed_at": sa.func.clock_timestamp()}
    if not move(session, DraftRequest, {"id": row.id}, from_=UNCLOSED, to=to, **values):
        return False
    callbacks.due(session, row, to)
    audit.record(session, str(actor), f"request.{to}", f"request:{row.id}", institution=row.institution, **detail)
    session.refresh(row)
    return True


def open_again(session: Session, row: DraftRequest, actor: Actor) -> bool:
    """Puts a signed request back where it stood before it was signed; False when it is not signed."""
    to = (
        RequestState.DRAFTED
        if row.draft_version is not None
        else RequestState.WITHHELD
        if row.reason is not None
        else RequestState.QUEUED
    )
    if not move(session, DraftRequest, {"id": row.id}, from_=RequestState.SIGNED, to=to, closed_at=None):
        return False
    audit.record(session, str(actor), "request.reopened", f"request:{row.id}", institution=row.institution)
    session.refresh(row)
    return True


def touch(session: Session, row: DraftRequest) -> None:
    """Tells the change feed that something about a request changed which is not its state: whose signature stands."""
    session.execute(sa.update(_REQUESTS).where(_REQUESTS.c.id == row.id).values(changed_xid=0))  # the trigger stamps it


def accept(
    session: Session, keyring: Keyring, body: RequestIn, actor: Actor, *, door: str, queue: QueueSettings
) -> Accepted:
    """Takes a request in. The same current one again is returned as it stands; changed findings supersede an unclosed one and amend a signed one.

    Raises:
        Forbidden: the sender speaks for another institution.
        NotFound: there is no such institution.
        Invalid: findings that are empty, too long or not text; a callback host that is not listed.
    """
    if actor.institution not in (None, body.institution):
        raise Forbidden("This key does not speak for that institution.", code="wrong_institution")
    usable(body.findings, "findings", MAX_FINDINGS)
    if any("\0" in text for text in (*_words(body), body.patient.id)):
        raise Invalid("A field has U+0000, which is not text.", code="not_text")
    if not body.accession.strip() or not body.patient.id.strip():  # all blank ones would be one and the same
        raise Invalid("accession and patient.id must not be blank.", code="blank")
    known = sealed(keyring, body.institution, "accession", body.accession)
    accession = known["pseudonym"]
    arrival = session.execute(
        _arriving(), {"its_code": body.institution, "its_key": _lock_key(body.institution, accession)}
    ).first()
    if arrival is None:
        raise NotFound("There is no such institution.", code="unknown_institution")
    profile, now = institutions.stored(arrival.profile), arrival.began
    if body.callback_url is not None:
        callbacks.allowed(body.callback_url, profile)
    digest = findings_hash(body.findings)
    current = _current(session, body.institution, accession)
    same = next((row for row in current if row.findings_hash == digest), None)
    unclosed = [row for row in current if row.state in UNCLOSED and row is not same]
    for row in unclosed:
        close(session, row, RequestState.SUPERSEDED, actor)
    if same is not None:
        if body.priority == "stat" and not same.is_stat and same.state in (RequestState.QUEUED, RequestState.DRAFTING):
            same.is_stat, same.priority, same.due_at = True, "stat", same.accepted_at
            session.add(same)
            audit.record(
                session, str(actor), "request.raised_to_stat", f"request:{same.id}", institution=same.institution
            )
            return Accepted(same.id, same.state, False, True, same.state is RequestState.QUEUED)
        return Accepted(same.id, same.state, False, same.is_stat, False)
    signed = next((row for row in current if row.state is RequestState.SIGNED), None)
    is_stat = body.priority == "stat"
    is_critical = has_critical(body.findings)
    identity = new_id()
    new: dict[str, Any] = {
        "id": identity,
        "institution": body.institution,
        "accession": accession,
        "patient": keyring.pseudonym(body.institution, "patient", body.patient.id),
        "findings_hash": digest,
        "door": door,
        "sent_by": str(actor),
        "priority": body.priority,
        "is_stat": is_stat,
        "is_critical": is_critical,
        "accepted_at": now,
        "due_at": now if is_critical else now + _offset(body.priority, queue),
        "rung_at": now,
        "state": RequestState.QUEUED,
        "attempts": 0,
        "crashes": 0,
        "modality": body.modality,
        "systems": [str(system) for system in _systems(body)],
        "exam_title": body.exam_title,
        "sex": body.patient.sex or Sex.U,
        "age": body.patient.age,
        "patient_class": body.patient_class,
        "history": body.history,
        "prior_impression": body.prior_impression,
        "author": None if body.author is None else keyring.pseudonym(body.institution, "doctor", body.author),
        "language": body.language or profile.language,
        "findings": body.findings,
        "callback_url": body.callback_url,
        "supersedes": unclosed[0].id if unclosed else None,
        "amends": signed.id if signed is not None else None,
    }
    told = audit.values(
        str(actor),
        "request.accepted",
        f"request:{identity}",
        institution=body.institution,
        door=door,
        priority=body.priority,
    )
    session.execute(_accepting(tuple(new)), bound("new", new) | bound("known", known) | bound("told", told))
    return Accepted(identity, RequestState.QUEUED, True, is_stat, True)


@cache
def _arriving() -> Any:
    """One statement: the institution's profile, and the accession number's lock."""
    house = Institution.__table__  # type: ignore[attr-defined]
    lock = _lock(sa.bindparam("its_key", type_=sa.Text))
    return sa.select(house.c.profile, sa.func.now().label("began"), lock).where(
        house.c.code == sa.bindparam("its_code")
    )


@cache
def _accepting(columns: tuple[str, ...]) -> Any:
    """One statement: store the request, keep its accession number, tell the audit trail."""
    row = sa.insert(_REQUESTS).values(
        {name: sa.bindparam(f"new_{name}", type_=_REQUESTS.c[name].type) for name in columns}
    )
    known = inserting(Identity, SEALED, "known", once=True)
    return row.add_cte(known, inserting(AuditEvent, audit.COLUMNS, "told"))


@cache
def _standing() -> Any:
    """The ids of the requests of an accession number that count, newest first."""
    query = sa.select(_REQUESTS.c.id).where(
        _REQUESTS.c.institution == sa.bindparam("its_code"), _REQUESTS.c.accession == sa.bindparam("its_accession")
    )
    # as the index has it: with parameters in their place PostgreSQL could not use that index for a plan that it keeps
    query = query.where(sa.text("state NOT IN ('superseded', 'cancelled')"))
    return query.order_by(_REQUESTS.c.accepted_at.desc(), _REQUESTS.c.id.desc())


def _current(session: Session, institution: str, accession: str) -> list[DraftRequest]:
    """Those requests; mostly there are none, and then no row is made of the answer."""
    ids = session.execute(_standing(), {"its_code": institution, "its_accession": accession}).scalars().all()
    return [session.get_one(DraftRequest, identity) for identity in ids]


def _words(body: RequestIn) -> list[str]:
    return [text for name in RequestIn.model_fields if isinstance(text := getattr(body, name), str)]


def _systems(body: RequestIn) -> tuple[System, ...]:
    return systems_of(body.body_part or "") or systems_of(body.exam_title or "")


def get(session: Session, identity: UUID, actor: Actor, *, lock: bool = False) -> DraftRequest:
    """The request. Raises NotFound when there is none, or when it is another institution's."""
    query = select(DraftRequest).where(DraftRequest.id == identity).execution_options(populate_existing=True)
    if lock:
        query = query.with_for_update()
    row = session.exec(query).first()
    if row is None or actor.institution not in (None, row.institution):
        raise NotFound("There is no such request.")
    return row


def restamp(session: Session) -> int:
    """Gives rows whose last change seems to lie in the future this transaction's number; returns how many.

    A database restored from a dump counts transactions anew, and its rows would stay out of the change feed until the count caught up.
    """
    current = sa.cast(sa.cast(sa.func.pg_current_xact_id(), sa.Text), sa.BigInteger)
    statement = (
        sa.update(_REQUESTS).where(_REQUESTS.c.changed_xid > current).values(changed_xid=0)
    )  # the trigger stamps it
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def cancel(session: Session, identity: UUID, actor: Actor) -> DraftRequest:
    """Takes an unclosed request back; cancelling a cancelled one again is no error.

    Raises:
        Conflict: it is signed or superseded.
    """
    row = get(session, identity, actor, lock=True)
    if row.state is RequestState.CANCELLED:
        return row
    if not close(session, row, RequestState.CANCELLED, actor):
        raise Conflict(f"The request is {row.state} and can no longer be cancelled.", code=f"already_{row.state}")
    return row


def regenerate(session: Session, identity: UUID, actor: Actor) -> DraftRequest:
    """Puts a settled request back into the queue for another draft; the present one stays visible until then.

    Raises:
        Conflict: it is not settled.
    """
    row = get(session, identity, actor, lock=True)
    values = {
        "attempts": 0,
        "crashes": 0,
        "reason": None,
        "not_before": None,
        "settled_at": None,
        "rung_at": sa.func.clock_timestamp(),
    }
    if not move(session, DraftRequest, {"id": row.id}, from_=SETTLED, to=RequestState.QUEUED, **values):
        raise Conflict(f"The request is {row.state}; only a settled one can be drafted again.", code=f"is_{row.state}")
    audit.record(session, str(actor), "request.regenerate", f"request:{row.id}", institution=row.institution)
    session.refresh(row)
    return row


def record_event(session: Session, identity: UUID, kind: str, actor: Actor, draft_version: int | None = None) -> None:
    """Notes what was done with a draft. Raises Invalid for an unknown kind or a version that the request does not have."""
    if kind not in EVENTS:
        raise Invalid(f"An event is one of {', '.join(EVENTS)}.", code="event")
    row = get(session, identity, actor)
    if draft_version is not None and not 1 <= draft_version <= (row.draft_version or 0):
        raise Invalid("The request has no draft of that version.", code="draft_version")
    session.add(
        RequestEvent(request_id=row.id, kind=kind, draft_version=draft_version or row.draft_version, actor=str(actor))
    )
    audit.record(
        session,
        str(actor),
        f"draft.{kind}",
        f"request:{row.id}",
        institution=row.institution,
        version=draft_version or row.draft_version,
    )
