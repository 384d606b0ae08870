"""Signatures: a person signs, opens a signed report again, or signs in the RIS and ingest sees it. The only writer of sign-offs.

Functions run inside the caller's transaction and move the request through core.requests. Which signatures are still to score is told here too,
since it follows from what a draft was and whether the signature still stands.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from clinical import label
from clinical.distance import edit_distance
from clinical.text import normalise
from core import audit, institutions, requests
from core.answers import hidden_draft, issues_of, visible_draft
from core.errors import Conflict, Forbidden, Invalid
from core.requests import Actor
from core.states import UNCLOSED, Reason, ReportStatus, RequestState
from core.tables import Draft, DraftRequest, Report, ReportVersion, RequestEvent, ScoreRow, SignOff, Withdrawal

OWED = (Reason.CHECKS_FAILED, Reason.DEADLINE, Reason.CRASHED, Reason.TOO_LONG)
"""Reasons under which a missing draft is our failure and scores 0."""
LIGHT_EDIT = 0.30
"""Edit ratio (distance over the longer length) up to which a changed draft counts as lightly edited."""

_STANDS = ~select(Withdrawal.sign_off_id).where(Withdrawal.sign_off_id == SignOff.id).exists()
"""Condition on sign-offs: the RIS has not taken their report back."""


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
    confirmed: Collection[int] = (),
) -> SignOff:
    """A person signs an impression. `draft_version` is the draft that they saw; None when they wrote without one. `confirmed` are the numbers,
    from 1, of the draft's issues that they have confirmed; an institution may demand that of every red one (`confirm_red`).

    Raises:
        Forbidden: the caller is a system, not a person.
        Conflict: the draft seen is not the newest, a red issue is not confirmed, or the request is closed.
        Invalid: no text, or the AI label left inside it.
    """
    if actor.kind != "user" or actor.role not in ("radiologist", "admin"):
        raise Forbidden("Only a person signs; a system key may not.", code="person_required")
    row = requests.get(session, identity, actor, lock=True)
    requests.usable(impression, "impression", requests.MAX_IMPRESSION)
    if label.left_over(impression):
        raise Invalid(
            "The impression still holds the label of the AI draft; remove it before signing.", code="label_left_over"
        )
    if row.state not in UNCLOSED:
        raise Conflict(f"The request is {row.state} already.", code=f"already_{row.state}")
    if draft_version is not None and draft_version != row.draft_version:
        raise Conflict("A newer draft is there; look at it before signing.", code="outdated_draft")
    draft = visible_draft(session, row)
    if draft is not None and draft_version is not None and institutions.profile(session, row.institution).confirm_red:
        _demand_confirmed(session, draft, confirmed)
    scored = draft or hidden_draft(session, row)
    sign_off = SignOff(
        request_id=row.id,
        version=_next_version(session, row),
        place="here",
        text_role="author",
        impression=impression,
        draft_id=None if scored is None else scored.id,
        signer=actor.id,
        signer_grade=signer_grade,
        exposure=exposure(session, row, draft, impression, place="here"),
    )
    session.add(sign_off)
    session.flush()
    if not requests.close(
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


def _demand_confirmed(session: Session, draft: Draft, confirmed: Collection[int]) -> None:
    missing = [
        f"{number} ({issue['kind']})"
        for number, issue in enumerate(issues_of(session, draft), 1)
        if issue["severity"] == "red" and number not in confirmed
    ]
    if missing:
        raise Conflict(
            f"Red issues of the draft are not confirmed: {', '.join(missing)}. Send their numbers in `confirmed`.",
            code="unconfirmed",
        )


def reopen(session: Session, identity: UUID, actor: Actor) -> DraftRequest:
    """Opens a signed request again; the next signature is a new version and the former stays.

    Raises:
        Forbidden: the caller is a system, not a person.
        Conflict: it is not signed.
    """
    if actor.kind != "user":
        raise Forbidden("Only a person reopens a signed report.", code="person_required")
    row = requests.get(session, identity, actor, lock=True)
    if not requests.open_again(session, row, actor):
        raise Conflict(f"The request is {row.state}; only a signed one can be reopened.", code=f"is_{row.state}")
    return row


def _asked_for(session: Session, report: Report) -> DraftRequest | None:
    """The current request of the report's accession number, locked."""
    return session.exec(
        select(DraftRequest)
        .where(DraftRequest.institution == report.institution, DraftRequest.accession == report.accession)
        .where(col(DraftRequest.state).not_in([RequestState.SUPERSEDED, RequestState.CANCELLED]))
        .order_by(col(DraftRequest.accepted_at).desc(), col(DraftRequest.id).desc())
        .with_for_update()
    ).first()


def match_ris(session: Session, report: Report) -> list[UUID]:
    """Links a final report that ingest has just stored to its request, closing it; returns the sign-offs to score.

    The RIS's text wins: a request that was signed here gets a further version. The same report version twice adds nothing.
    """
    if report.accession is None or not report.impression_raw.strip():
        return []
    requests.lock_accession(session, report.institution, report.accession)
    row = _asked_for(session, report)
    if row is None:
        return []
    actor = Actor("process", "ingest", "process")
    known = session.exec(
        select(SignOff).where(
            SignOff.request_id == row.id, SignOff.report_id == report.id, SignOff.report_version == report.version
        )
    ).first()
    if known is not None:
        if (withdrawal := session.get(Withdrawal, known.id)) is not None:  # signed again, with the same words
            session.delete(withdrawal)
            session.flush()
            if not requests.close(session, row, RequestState.SIGNED, actor, version=known.version, place="ris"):
                requests.touch(session, row)
        return []
    draft = visible_draft(session, row)
    scored = draft or hidden_draft(session, row)
    leftover = label.left_over(report.impression_raw)
    sign_off = SignOff(
        request_id=row.id,
        version=_next_version(session, row),
        place="ris",
        text_role="reviewer" if report.reviewer is not None else "author",
        impression=report.impression_raw,
        draft_id=None if scored is None else scored.id,
        report_id=report.id,
        report_version=report.version,
        signer=report.reviewer or report.author or "unknown",
        signer_grade=report.reviewer_grade or report.author_grade,
        exposure=exposure(session, row, draft, report.impression_raw, place="ris"),
        signed_at=report.signed_at or report.reported_at or session.execute(sa.select(sa.func.now())).scalar_one(),
    )
    session.add(sign_off)
    session.flush()
    if row.state in UNCLOSED:
        requests.close(
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
        requests.touch(session, row)
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


def _changed_at(session: Session, report: Report) -> datetime | None:
    """When the report became what it is, by the source's time; None where the change left that time alone, so that it was since our last look."""
    before = select(sa.func.max(ReportVersion.modified_at)).where(
        ReportVersion.report_id == report.id, ReportVersion.status != report.status
    )
    known = session.exec(before).one()
    if report.modified_at is None or (known is not None and report.modified_at <= known):
        return None
    return report.modified_at


def withdraw_ris(session: Session, report: Report, *, gone_since: datetime | None = None) -> None:
    """Follows an institution that took a report back: its text is no signature any more and is not scored.

    A retraction, or a report that is gone from its database (`gone_since`), also takes an open request off the worklist; a report that was opened
    again puts the request that its signature had closed back there, with its draft. A person's signature on our page stands until they reopen it.
    """
    if report.accession is None:
        return
    requests.lock_accession(session, report.institution, report.accession)
    actor = Actor("process", "ingest", "process")
    now = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    withdrawn = session.exec(select(SignOff).where(SignOff.report_id == report.id, _STANDS)).all()
    for sign_off in withdrawn:
        session.add(Withdrawal(sign_off_id=sign_off.id, status=report.status))
        audit.record(
            session,
            str(actor),
            "sign_off.withdrawn",
            f"request:{sign_off.request_id}",
            institution=report.institution,
            version=sign_off.version,
            status=report.status.value,
        )
    session.flush()
    row = _asked_for(session, report)
    if row is None:
        return
    reopened = gone_since is None and report.status in (ReportStatus.PRELIMINARY, ReportStatus.UNSIGNED)
    if row.state in UNCLOSED:
        if not reopened and row.accepted_at <= (gone_since or _changed_at(session, report) or now):
            reason = report.status.value if gone_since is None else "absent"
            requests.close(session, row, RequestState.CANCELLED, actor, reason=reason)
    elif any(sign_off.request_id == row.id for sign_off in withdrawn):
        standing = select(SignOff.id).where(SignOff.request_id == row.id, _STANDS)
        if not reopened or session.exec(standing).first() is not None or not requests.open_again(session, row, actor):
            requests.touch(session, row)


def unscored(session: Session, scorer: str, limit: int, *, institution: str | None = None) -> list[UUID]:
    """Sign-offs (of one institution) to score that have no score of this scorer yet, oldest first. A `scorer` that ends in % stands for
    every one that begins so.

    Where a draft was shown, it is scored; where we owed one and failed, the empty draft is (as 0). A report that was signed before its
    draft was written, that was held back or that no model serves has nothing to score.
    """
    query = sa.select(col(SignOff.id)).join(DraftRequest, col(DraftRequest.id) == col(SignOff.request_id))
    query = query.where(*_unscored(scorer, institution)).order_by(col(SignOff.signed_at), col(SignOff.id)).limit(limit)
    return list(session.execute(query).scalars())


def count_unscored(session: Session, scorer: str, *, institution: str | None = None) -> int:
    """How many `unscored` has in all."""
    query = sa.select(sa.func.count()).select_from(SignOff)
    query = query.join(DraftRequest, col(DraftRequest.id) == col(SignOff.request_id)).where(
        *_unscored(scorer, institution)
    )
    return int(session.execute(query).scalar_one())


def _unscored(scorer: str, institution: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    scored = select(ScoreRow.id).where(ScoreRow.sign_off_id == SignOff.id, col(ScoreRow.scorer).like(scorer)).exists()
    there = sa.true() if institution is None else col(DraftRequest.institution) == institution
    return ~scored, _STANDS, there, sa.or_(col(SignOff.draft_id).is_not(None), col(DraftRequest.reason).in_(OWED))
