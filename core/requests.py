"""Accept, change, cancel, regenerate, sign, reopen, match a RIS sign-off: with core.leases the only writer of requests and sign-offs.

Every door translates into this module and decides nothing itself. Functions run inside the caller's transaction; after its commit the
caller rings the bell (`ring`). Another institution's request does not exist for a caller: the answer is NotFound either way.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import Session, col, select

from clinical.case import Modality, Sex, System, systems_of
from clinical.checks import has_critical
from clinical.score import edit_distance
from clinical.text import findings_hash, normalise
from core import audit, callbacks, institutions, queue
from core.db import move
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.identity import Keyring, remember
from core.settings import QueueSettings
from core.states import SETTLED, UNCLOSED, Reason, RequestState
from core.tables import Draft, DraftIssue, DraftRequest, Identity, Report, RequestEvent, ScoreRow, SignOff

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
OWED = (Reason.CHECKS_FAILED, Reason.DEADLINE, Reason.CRASHED, Reason.TOO_LONG)
"""Reasons under which a missing draft is our failure and scores 0."""
LIGHT_EDIT = 0.30
"""Edit ratio (distance over the longer length) up to which a changed draft counts as lightly edited."""

_LEFT_OVER = re.compile(r"AI\s*草稿|须医师审核|須醫師審核|AI draft, for review", re.IGNORECASE)
_REQUESTS = DraftRequest.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass


class PatientIn(BaseModel):
    """The patient of a request: the number becomes a pseudonym at once; a name has no place here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    id: str = Field(min_length=1, max_length=128)
    sex: Sex | None = None
    age: int | None = Field(None, ge=0, le=150)


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


def _usable(text: str, what: str, longest: int) -> None:
    """Refuses what PostgreSQL or a model cannot take whole; nothing is cut or replaced."""
    if len(text) > longest:
        raise Invalid(
            f"The {what} must have at most {longest:,} characters, and these have {len(text):,}.",
            code=f"{what}_too_long",
        )
    for position, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise Invalid(
                f"The {what} have U+{ord(character):04X} at position {position}, which is not text.", code="not_text"
            )
    if not any(character.isalnum() for character in normalise(text).text):
        raise Invalid(f"The {what} must not be empty.", code=f"empty_{what}")


def ring(accepted: Accepted) -> bool:
    """Rings for a request that waits; to be called after the commit. A broker that is away is the clerk's business, not the sender's."""
    if not accepted.rings:
        return True
    return queue.ring("stat" if accepted.is_stat else "routine", accepted.id)


def _lock(session: Session, institution: str, accession: str) -> None:
    """One decision at a time about an accession."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"{institution}/{accession}", 0))))


def _offset(priority: str, settings: QueueSettings) -> timedelta:
    """How long after its acceptance a request of this priority is due; the claim's order by due time is ageing for free."""
    return timedelta(seconds={"stat": 0.0, "urgent": settings.urgent_offset_s}.get(priority, settings.routine_offset_s))


def _close(session: Session, row: DraftRequest, to: RequestState, actor: Actor, **detail: Any) -> bool:
    """Moves an unclosed request to a closed state, taking its lease away; False when it was closed meanwhile."""
    values = {"lease": None, "leased_until": None, "closed_at": sa.func.clock_timestamp()}
    if not move(session, DraftRequest, {"id": row.id}, from_=UNCLOSED, to=to, **values):
        return False
    callbacks.due(session, row, to)
    audit.record(session, str(actor), f"request.{to}", f"request:{row.id}", institution=row.institution, **detail)
    session.refresh(row)
    return True


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
    profile = institutions.profile(session, body.institution)
    _usable(body.findings, "findings", MAX_FINDINGS)
    for text in (*body.model_dump(exclude={"findings", "patient"}).values(), body.patient.id):
        if isinstance(text, str) and "\0" in text:
            raise Invalid("A field has U+0000, which is not text.", code="not_text")
    if body.callback_url is not None:
        callbacks.allowed(body.callback_url, profile)
    accession = remember(session, keyring, body.institution, "accession", body.accession)
    patient = keyring.pseudonym(body.institution, "patient", body.patient.id)
    digest = findings_hash(body.findings)
    _lock(session, body.institution, accession)
    current = session.exec(
        select(DraftRequest)
        .where(DraftRequest.institution == body.institution, DraftRequest.accession == accession)
        .where(col(DraftRequest.state).not_in([RequestState.SUPERSEDED, RequestState.CANCELLED]))
        .order_by(col(DraftRequest.accepted_at).desc(), col(DraftRequest.id).desc())
    ).all()
    same = next((row for row in current if row.findings_hash == digest), None)
    unclosed = [row for row in current if row.state in UNCLOSED and row is not same]
    for row in unclosed:
        _close(session, row, RequestState.SUPERSEDED, actor)
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
    now = session.execute(sa.select(sa.func.now())).scalar_one()
    is_stat = body.priority == "stat"
    is_critical = has_critical(body.findings)
    row = DraftRequest(
        institution=body.institution,
        accession=accession,
        patient=patient,
        findings_hash=digest,
        door=door,
        sent_by=str(actor),
        priority=body.priority,
        is_stat=is_stat,
        is_critical=is_critical,
        accepted_at=now,
        due_at=now if is_critical else now + _offset(body.priority, queue),
        rung_at=now,
        modality=body.modality,
        systems=[str(system) for system in _systems(body)],
        exam_title=body.exam_title,
        sex=body.patient.sex or Sex.U,
        age=body.patient.age,
        patient_class=body.patient_class,
        history=body.history,
        prior_impression=body.prior_impression,
        author=None if body.author is None else keyring.pseudonym(body.institution, "doctor", body.author),
        language=body.language or profile.language,
        findings=body.findings,
        callback_url=body.callback_url,
        supersedes=unclosed[0].id if unclosed else None,
        amends=signed.id if signed is not None else None,
    )
    session.add(row)
    session.flush()
    audit.record(
        session,
        str(actor),
        "request.accepted",
        f"request:{row.id}",
        institution=row.institution,
        door=door,
        priority=body.priority,
    )
    return Accepted(row.id, RequestState.QUEUED, True, is_stat, True)


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


def visible_draft(session: Session, row: DraftRequest) -> Draft | None:
    """The draft that the radiologist sees, if there is one."""
    return session.exec(select(Draft).where(Draft.request_id == row.id, col(Draft.visible))).first()


def issues_of(session: Session, draft: Draft) -> list[dict[str, Any]]:
    """The draft's issues with the keys of `valuer check`, red before amber before info."""
    order = {"withhold": 0, "red": 1, "amber": 2, "info": 3}
    rows = session.exec(select(DraftIssue).where(DraftIssue.draft_id == draft.id)).all()
    return [
        {
            "kind": i.kind,
            "severity": i.severity,
            "span_findings": i.span_findings,
            "span_impression": i.span_impression,
            "message": i.message,
        }
        for i in sorted(rows, key=lambda i: (order[i.severity], i.span_impression or [0], i.kind))
    ]


def view(session: Session, row: DraftRequest) -> dict[str, Any]:
    """The answer of `GET /v1/requests/{id}`."""
    answer: dict[str, Any] = {"id": str(row.id), "state": str(row.state)}
    if row.reason is not None:
        answer["reason"] = str(row.reason)
    if row.supersedes is not None:
        answer["supersedes"] = str(row.supersedes)
    if row.amends is not None:
        answer["amends"] = str(row.amends)
    draft = visible_draft(session, row) if row.draft_version is not None else None
    if draft is not None:
        answer["draft"] = {
            "version": draft.version,
            "impression": draft.impression,
            "issues": issues_of(session, draft),
            "model": draft.model_version,
            "label": draft.label,
        }
    if row.state is RequestState.SIGNED:
        newest = select(SignOff).where(SignOff.request_id == row.id).order_by(col(SignOff.version).desc())
        signed = session.exec(newest).first()
        if signed is not None:
            answer["signed"] = {"version": signed.version, "impression": signed.impression, "place": signed.place}
    return answer


def restamp(session: Session) -> int:
    """Gives rows whose last change seems to lie in the future this transaction's number; returns how many.

    A database restored from a dump counts transactions anew, and its rows would stay out of the change feed until the count caught up.
    """
    current = sa.cast(sa.cast(sa.func.pg_current_xact_id(), sa.Text), sa.BigInteger)
    statement = (
        sa.update(_REQUESTS).where(_REQUESTS.c.changed_xid > current).values(changed_xid=0)
    )  # the trigger stamps it
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def find(
    session: Session, keyring: Keyring, accession: str, actor: Actor, institution: str | None = None
) -> list[DraftRequest]:
    """The requests of an accession number, newest first; an administrator names the institution.

    Raises:
        Invalid: no institution is named and the caller has none.
    """
    institution = actor.institution or institution
    if institution is None:
        raise Invalid("Name the institution of this accession number.", code="institution_missing")
    pseudonym = keyring.pseudonym(institution, "accession", accession)
    query = select(DraftRequest).where(DraftRequest.institution == institution, DraftRequest.accession == pseudonym)
    return list(session.exec(query.order_by(col(DraftRequest.accepted_at).desc(), col(DraftRequest.id).desc())))


def changes(session: Session, actor: Actor, since: str | None, limit: int = 100) -> tuple[list[dict[str, Any]], str]:
    """Requests that changed after the cursor, oldest change first, and the next cursor; None starts at the beginning.

    Safe against late commits: a row is shown only when every transaction that started before its last change has ended. A request that
    changed twice in between is shown once, as it stands.

    Raises:
        Invalid: the cursor is not one of ours.
    """
    xid, identity = 0, UUID(int=0)
    if since:
        try:
            first, _, second = since.partition(".")
            xid, identity = int(first), UUID(second)
        except ValueError:
            raise Invalid("The cursor is not one that this server gave.", code="cursor") from None
    horizon = sa.cast(sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger)
    query = (
        select(DraftRequest)
        .where(
            sa.tuple_(_REQUESTS.c.changed_xid, _REQUESTS.c.id)
            > sa.tuple_(sa.literal(xid), sa.literal(identity, _REQUESTS.c.id.type))
        )
        .where(_REQUESTS.c.changed_xid < horizon)
        .order_by(_REQUESTS.c.changed_xid, _REQUESTS.c.id)
        .limit(limit)
    )
    if actor.institution is not None:
        query = query.where(DraftRequest.institution == actor.institution)
    rows = session.exec(query).all()
    cursor = f"{rows[-1].changed_xid}.{rows[-1].id}" if rows else (since or f"0.{UUID(int=0)}")
    return [view(session, row) for row in rows], cursor


def _accessions(session: Session, keyring: Keyring, rows: Collection[DraftRequest]) -> dict[tuple[str, str], str]:
    """The accession numbers of these requests by (institution, pseudonym), with one question for all of them."""
    query = select(Identity).where(
        col(Identity.institution).in_({row.institution for row in rows}),
        Identity.purpose == "accession",
        col(Identity.pseudonym).in_({row.accession for row in rows}),
    )
    return {
        (known.institution, known.pseudonym): keyring.open(known.institution, "accession", known.sealed).decode()
        for known in session.exec(query)
    }


def worklist(
    session: Session,
    actor: Actor,
    states: Collection[RequestState] | None = None,
    limit: int = 200,
    keyring: Keyring | None = None,
) -> list[dict[str, Any]]:
    """What waits for the radiologist, stat first, then by due time; with a keyring each entry has its accession number."""
    wanted = sorted(states) if states else sorted(UNCLOSED)
    query = select(DraftRequest).where(col(DraftRequest.state).in_(wanted))
    if actor.institution is not None:
        query = query.where(DraftRequest.institution == actor.institution)
    rows = session.exec(
        query.order_by(
            col(DraftRequest.is_stat).desc(), col(DraftRequest.is_critical).desc(), col(DraftRequest.due_at)
        ).limit(limit)
    ).all()
    accessions = {} if keyring is None else _accessions(session, keyring, rows)
    return [
        {
            "id": str(row.id),
            "institution": row.institution,
            "accession": accessions.get((row.institution, row.accession)),
            "state": str(row.state),
            "reason": None if row.reason is None else str(row.reason),
            "priority": row.priority,
            "critical": row.is_critical,
            "modality": row.modality,
            "systems": list(row.systems),
            "exam_title": row.exam_title,
            "sex": row.sex,
            "age": row.age,
            "accepted_at": row.accepted_at.isoformat(),
            "due_at": row.due_at.isoformat(),
            "draft_version": row.draft_version,
        }
        for row in rows
    ]


def cancel(session: Session, identity: UUID, actor: Actor) -> DraftRequest:
    """Takes an unclosed request back; cancelling a cancelled one again is no error.

    Raises:
        Conflict: it is signed or superseded.
    """
    row = get(session, identity, actor, lock=True)
    if row.state is RequestState.CANCELLED:
        return row
    if not _close(session, row, RequestState.CANCELLED, actor):
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


def exposure(session: Session, row: DraftRequest, draft: Draft | None, signed: str, *, place: str) -> str:
    """How far the draft can have influenced the signed text (the classes of the learning loop): by what was displayed, then by the text.

    A report signed in another system whose display is unknown counts as seen.
    """
    if draft is None:
        return "hold_back" if row.reason is Reason.HELD_BACK else "unassisted"
    seen = session.exec(
        select(RequestEvent.id).where(
            RequestEvent.request_id == row.id,
            col(RequestEvent.kind).in_(["shown", "opened", "copied"]),
            col(RequestEvent.draft_version).is_not(None),
        )
    ).first()
    if seen is None and place == "here":
        return "not_opened"
    before, after = normalise(draft.impression).text, normalise(signed).text
    if before == after:
        return "verbatim"
    return "light_edit" if edit_distance(before, after) <= LIGHT_EDIT * max(len(before), len(after)) else "heavy_edit"


def _next_version(session: Session, row: DraftRequest) -> int:
    last = session.execute(
        sa.select(sa.func.max(SignOff.version)).where(col(SignOff.request_id) == row.id)
    ).scalar_one()
    return int(last or 0) + 1


def sign(
    session: Session,
    identity: UUID,
    impression: str,
    draft_version: int | None,
    actor: Actor,
    *,
    signer_grade: str | None = None,
) -> SignOff:
    """A person signs an impression. `draft_version` is the draft that they saw; None when they wrote without one.

    Raises:
        Forbidden: the caller is a system, not a person.
        Conflict: the draft seen is not the newest, or the request is closed.
        Invalid: no text, or the AI label left inside it.
    """
    if actor.kind != "user" or actor.role not in ("radiologist", "admin"):
        raise Forbidden("Only a person signs; a system key may not.", code="person_required")
    row = get(session, identity, actor, lock=True)
    _usable(impression, "impression", MAX_IMPRESSION)
    if _LEFT_OVER.search(impression):
        raise Invalid(
            "The impression still holds the label of the AI draft; remove it before signing.", code="label_left_over"
        )
    if row.state not in UNCLOSED:
        raise Conflict(f"The request is {row.state} already.", code=f"already_{row.state}")
    if draft_version is not None and draft_version != row.draft_version:
        raise Conflict("A newer draft is there; look at it before signing.", code="outdated_draft")
    draft = visible_draft(session, row)
    sign_off = SignOff(
        request_id=row.id,
        version=_next_version(session, row),
        place="here",
        text_role="author",
        impression=impression,
        draft_id=None if draft is None else draft.id,
        signer=actor.id,
        signer_grade=signer_grade,
        exposure=exposure(session, row, draft, impression, place="here"),
    )
    session.add(sign_off)
    session.flush()
    if not _close(
        session,
        row,
        RequestState.SIGNED,
        actor,
        version=sign_off.version,
        draft_version=draft_version,
        exposure=sign_off.exposure,
    ):
        raise Conflict("The request was closed meanwhile.", code="closed")
    return sign_off


def reopen(session: Session, identity: UUID, actor: Actor) -> DraftRequest:
    """Opens a signed request again; the next signature is a new version and the former stays.

    Raises:
        Forbidden: the caller is a system, not a person.
        Conflict: it is not signed.
    """
    if actor.kind != "user":
        raise Forbidden("Only a person reopens a signed report.", code="person_required")
    row = get(session, identity, actor, lock=True)
    to = (
        RequestState.DRAFTED
        if row.draft_version is not None
        else RequestState.WITHHELD
        if row.reason is not None
        else RequestState.QUEUED
    )
    if not move(session, DraftRequest, {"id": row.id}, from_=RequestState.SIGNED, to=to, closed_at=None):
        raise Conflict(f"The request is {row.state}; only a signed one can be reopened.", code=f"is_{row.state}")
    audit.record(session, str(actor), "request.reopened", f"request:{row.id}", institution=row.institution)
    session.refresh(row)
    return row


def match_ris_sign_off(session: Session, report: Report) -> list[UUID]:
    """Links a final report that ingest has just stored to its request, closing it; returns the sign-offs to score.

    The RIS's text wins: a request that was signed here gets a further version. The same report version twice adds nothing.
    """
    if report.accession is None or not report.impression_raw.strip():
        return []
    _lock(session, report.institution, report.accession)
    row = session.exec(
        select(DraftRequest)
        .where(DraftRequest.institution == report.institution, DraftRequest.accession == report.accession)
        .where(col(DraftRequest.state).not_in([RequestState.SUPERSEDED, RequestState.CANCELLED]))
        .order_by(col(DraftRequest.accepted_at).desc(), col(DraftRequest.id).desc())
        .with_for_update()
    ).first()
    if row is None:
        return []
    known = select(SignOff.id).where(
        SignOff.request_id == row.id, SignOff.report_id == report.id, SignOff.report_version == report.version
    )
    if session.exec(known).first() is not None:
        return []
    draft = visible_draft(session, row)
    leftover = _LEFT_OVER.search(report.impression_raw) is not None
    sign_off = SignOff(
        request_id=row.id,
        version=_next_version(session, row),
        place="ris",
        text_role="reviewer" if report.reviewer is not None else "author",
        impression=report.impression_raw,
        draft_id=None if draft is None else draft.id,
        report_id=report.id,
        report_version=report.version,
        signer=report.reviewer or report.author or "unknown",
        signer_grade=report.reviewer_grade or report.author_grade,
        exposure=exposure(session, row, draft, report.impression_raw, place="ris"),
        signed_at=report.signed_at or report.reported_at or session.execute(sa.select(sa.func.now())).scalar_one(),
    )
    session.add(sign_off)
    session.flush()
    actor = Actor("process", "ingest", "process")
    if row.state in UNCLOSED:
        _close(
            session, row, RequestState.SIGNED, actor, version=sign_off.version, place="ris", exposure=sign_off.exposure
        )
    else:
        audit.record(
            session,
            str(actor),
            "request.signed",
            f"request:{row.id}",
            institution=row.institution,
            version=sign_off.version,
            place="ris",
        )
    if leftover:
        audit.record(
            session,
            str(actor),
            "alert.label_left_over",
            f"request:{row.id}",
            institution=row.institution,
            report=str(report.id),
        )
    return [sign_off.id]


def unscored(session: Session, scorer: str, limit: int) -> list[UUID]:
    """Sign-offs to score that have no score of this scorer yet, oldest first.

    Where a draft was shown, it is scored; where we owed one and failed, the empty draft is (as 0). A report that was signed before its
    draft was written, that was held back or that no model serves has nothing to score.
    """
    scored = select(ScoreRow.id).where(ScoreRow.sign_off_id == SignOff.id, ScoreRow.scorer == scorer).exists()
    query = (
        select(SignOff.id)
        .join(DraftRequest, col(DraftRequest.id) == col(SignOff.request_id))
        .where(~scored, sa.or_(col(SignOff.draft_id).is_not(None), col(DraftRequest.reason).in_(OWED)))
        .order_by(col(SignOff.signed_at), col(SignOff.id))
        .limit(limit)
    )
    return list(session.exec(query))
