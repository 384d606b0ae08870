"""One case: findings and draft side by side, the points to check, and the box in which the radiologist writes and signs.

What a person has written is never lost: every refusal comes back with their text, and a newer draft is offered, not put in its place.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlmodel import Session, col, select

from clinical.checks import check
from clinical.issues import Kind, Severity
from core import answers, audit, db, institutions, pace, requests, sign_offs
from core.errors import Conflict, Invalid
from core.identity import reveal
from core.states import CLOSED, SETTLED, UNCLOSED, RequestState
from core.tables import Draft, DraftRequest, RequestEvent, ScoreRow, SignOff, User, Withdrawal
from worklist import api
from worklist.access import Caller
from worklist.bodies import Form, one
from worklist.desk import Desk, TheDesk, TheReader, check_forgery, demand
from worklist.evidence import evidence_of, letters, links_in_findings, links_in_impression, pair_of, untold
from worklist.list_page import person_of, title_of
from worklist.marks import spans, stretches
from worklist.rendering import render
from worklist.words import Words

router = APIRouter(prefix="/cases")

QUOTED = 3
"""Clauses of the findings that are quoted for one sentence."""
GRAVE = 3
"""Severity from which findings left out are shown without a click, unless a point to check names them."""

_REFUSALS = {
    "outdated_draft": "notice.outdated",
    "empty_impression": "notice.empty_text",
    "impression_too_long": "notice.too_long",
    "not_text": "notice.not_text",
    "label_left_over": "notice.label_left_over",
}
"""What core.sign_offs.sign refuses, and how the page says it."""


def _shown_issues(session: Session, draft: Draft) -> list[dict[str, Any]]:
    """The issues that the reader is told; `info` is stored only."""
    return [issue for issue in answers.issues_of(session, draft) if issue["severity"] != "info"]


def _newest_signature(session: Session, row: DraftRequest) -> SignOff | None:
    """The newest that stands; where the RIS has taken all of them back, the newest of those."""
    withdrawn = select(Withdrawal.sign_off_id).where(Withdrawal.sign_off_id == SignOff.id).exists()
    found = select(SignOff).where(SignOff.request_id == row.id).order_by(withdrawn, col(SignOff.version).desc())
    return session.exec(found.limit(1)).first()


def _signature(session: Session, the: Desk, row: DraftRequest, signed: SignOff, words: Words) -> dict[str, Any]:
    """What was signed, by whom, and softly what the checks notice in it: a person's text is never held up, marked or changed, and the house's
    headings in it are no leak of a prompt."""
    name = words("case.in_ris")
    if signed.place == "here":
        user = session.get(User, UUID(signed.signer))
        name = signed.signer if user is None else user.display_name
    time = signed.signed_at.astimezone().strftime("%Y-%m-%d %H:%M")
    title = words("case.signed_text" if session.get(Withdrawal, signed.id) is None else "case.withdrawn_text")
    found = check(pair_of(row, signed.impression, the.settings.home))
    noticed = [one for one in found if one.severity != Severity.INFO and one.kind != Kind.PROMPT_LEAK]
    return {"title": title, "impression": signed.impression, "name": name, "time": time, "noticed": noticed}


def _score(session: Session, signed: SignOff) -> ScoreRow | None:
    """How far the draft was from what was signed, by the scorer that scored it last; its version stands beside the figures."""
    newest = select(ScoreRow).where(ScoreRow.sign_off_id == signed.id).order_by(col(ScoreRow.created_at).desc())
    return session.exec(newest.limit(1)).first()


def _edit_kinds(scored: ScoreRow | None, words: Words) -> list[str]:
    kinds = [] if scored is None else scored.detail.get("edit_kinds", [])
    return [words.get(f"edit_kind.{kind}") or kind for kind in kinds]


def _linked(
    the: Desk, row: DraftRequest, draft: Draft | None, issues: list[dict[str, Any]], words: Words
) -> dict[str, Any]:
    """Findings and draft with the issues marked and the evidence linked, and what the draft leaves out."""
    if draft is None:
        return {
            "findings": stretches(row.findings, [], []),
            "impression": [],
            "reasons": {},
            "untold": [],
            "untold_opens": False,
        }
    found = evidence_of(pair_of(row, draft.impression, the.settings.home))
    reasons = {"?": words("case.no_basis")} if any(link.key == "?" for link in links_in_impression(found)) else {}
    for sentence, letter in letters(found).items():
        quotes = [f"“{row.findings[start:end]}”" for start, end in sentence.findings[:QUOTED]]
        reasons[letter] = words(
            "case.rests_on", quotes=" ".join(quotes) + (" …" if len(sentence.findings) > QUOTED else "")
        )
    left_out = untold(found)
    named = [tuple(issue["span_findings"]) for issue in issues if issue["span_findings"]]
    return {
        "findings": stretches(row.findings, spans(issues, "span_findings"), links_in_findings(found)),
        "impression": stretches(draft.impression, spans(issues, "span_impression"), links_in_impression(found)),
        "reasons": reasons,
        "untold": left_out,
        "untold_opens": any(one.severity >= GRAVE and one.span not in named for one in left_out),
    }


def _newer(session: Session, row: DraftRequest) -> UUID | None:
    """The request that replaced this one."""
    if row.state is not RequestState.SUPERSEDED:
        return None
    return session.exec(select(DraftRequest.id).where(DraftRequest.supersedes == row.id)).first()


def _note_shown(session: Session, row: DraftRequest, caller: Caller, draft: Draft) -> None:
    """Notes that this person has seen this draft, once."""
    actor = str(caller.actor)
    seen = select(RequestEvent.id).where(RequestEvent.request_id == row.id, RequestEvent.actor == actor)
    seen = seen.where(RequestEvent.kind == "shown", RequestEvent.draft_version == draft.version)
    if session.exec(seen.limit(1)).first() is None:
        requests.record_event(session, row.id, "shown", caller.actor, draft.version)


def _context(session: Session, the: Desk, caller: Caller, row: DraftRequest, words: Words) -> dict[str, Any]:
    """Everything the template shows of a case; noting that the draft, if there is one, has been shown."""
    draft = answers.visible_draft(session, row)
    issues = [] if draft is None else _shown_issues(session, draft)
    signed = _newest_signature(session, row)
    is_signed = row.state is RequestState.SIGNED
    text = "" if draft is None else draft.impression
    scored = _score(session, signed) if signed is not None and is_signed and draft is not None else None
    if draft is not None:
        _note_shown(session, row, caller, draft)
    return {
        "caller": caller,
        "row": row,
        "accession": reveal(session, the.keyring, row.institution, "accession", row.accession),
        "title": title_of(words, row.exam_title, row.systems),
        "person": person_of(words, row.sex, row.age),
        "patient_class": row.patient_class and (words.get(f"patient_class.{row.patient_class}") or row.patient_class),
        "several": caller.actor.institution is None,
        "draft": draft,
        "issues": issues,
        **_linked(the, row, draft, issues, words),
        "signed": _signature(session, the, row, signed, words) if signed is not None and is_signed else None,
        "scored": scored,
        "kinds": _edit_kinds(scored, words),
        "newer": _newer(session, row),
        "waiting": pace.wait(session, row),
        "sign_mode": institutions.profile(session, row.institution).sign,
        "editable": row.state in UNCLOSED,
        "may_regenerate": row.state in SETTLED,
        "may_reopen": is_signed,
        "text": text if signed is None else signed.impression,  # a reopened case goes on from what was signed
        "own": signed is not None and not is_signed,
        "confirmed": frozenset(),
        "message": None,
        "refused": False,
    }


def _template(request: Request) -> str:
    """The part alone for our own script, the page in its frame for a browser."""
    return "case_part.html" if "x-part" in request.headers else "case.html"


@router.get("/{request_id}")
def page(request: Request, the: TheDesk, caller: TheReader, request_id: UUID) -> Response:
    """The case. Opening it is noted; so is every version of the draft that it shows."""
    with db.transaction(the.engine) as session:
        row = requests.get(session, request_id, caller.actor)
        context = _context(session, the, caller, row, Words.of(request))
        if "x-part" not in request.headers:
            if context["draft"] is not None:
                requests.record_event(session, row.id, "opened", caller.actor, context["draft"].version)
            else:
                audit.record(
                    session, str(caller.actor), "request.opened", f"request:{row.id}", institution=row.institution
                )
    return render(request, _template(request), context)


@router.get("/{request_id}/notice")
def notice(
    request: Request, the: TheDesk, caller: TheReader, request_id: UUID, seen: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """What has changed for somebody who has seen version `seen` (0: none): the state, how long it still takes, whether a newer draft is there.

    Unlike the case itself it shows no draft, so that nobody is noted to have seen one.
    """
    with db.transaction(the.engine) as session:
        row = requests.get(session, request_id, caller.actor)
        draft = answers.visible_draft(session, row)
        fresh = draft is not None and draft.version != seen
        context = {
            "row": row,
            "fresh": fresh,
            "closed": row.state in CLOSED,
            "newer": _newer(session, row),
            "waiting": pace.wait(session, row),
        }
    return render(request, "notice.html", context)


@router.post("/{request_id}/sign")
def sign(request: Request, the: TheDesk, caller: TheReader, request_id: UUID, fields: Form) -> Response:
    """Signs the text in the box; every important point has to be confirmed first. A refusal brings the case back with the text."""
    check_forgery(request, the.settings, caller, one(fields, "csrf"))
    demand(caller, "sign")
    words, text = Words.of(request), _text(fields)
    confirmed = frozenset(int(number) for number in fields.get("confirm", []) if number.isdecimal())
    version = _seen_version(fields)
    with db.transaction(the.engine) as session:
        row = requests.get(session, request_id, caller.actor)
        draft = answers.visible_draft(session, row)
        issues = [] if draft is None or draft.version != version else _shown_issues(session, draft)
    unconfirmed = {number for number, issue in enumerate(issues, 1) if issue["severity"] == "red"} - confirmed
    if unconfirmed and row.state in UNCLOSED:
        return _again(request, the, caller, request_id, text, words("notice.unconfirmed"), 422, confirmed)
    try:
        api.put_signature(
            the, caller, request_id, text, version, range(1, 1000)
        )  # all that it shows were looked at above
    except (Conflict, Invalid) as error:
        return _again(request, the, caller, request_id, text, _refusal(words, error, row), error.status, confirmed)
    return _gone(request, f"/?signed={request_id}")


def _refusal(words: Words, error: Conflict | Invalid, row: DraftRequest) -> str:
    if error.code in _REFUSALS:
        return words(_REFUSALS[error.code])
    if row.state in CLOSED:
        return words("notice.closed", state=words(f"state.{row.state}"))
    return words("notice.failed", detail=error.message)


def _again(
    request: Request,
    the: Desk,
    caller: Caller,
    request_id: UUID,
    text: str,
    message: str,
    status: int,
    confirmed: frozenset[int] = frozenset(),
) -> Response:
    """The case as it stands now, with the person's own text in the box and a message above."""
    with db.transaction(the.engine) as session:
        row = requests.get(session, request_id, caller.actor)
        context = _context(session, the, caller, row, Words.of(request))
    kept = confirmed if status == 422 else frozenset()  # a newer draft has points of its own
    context |= {"text": text, "own": True, "message": message, "refused": status >= 400, "confirmed": kept}
    return render(request, _template(request), context, status=status)


def _gone(request: Request, way: str) -> Response:
    """Where to go next: as a redirect, or for our own script (whose text must not vanish before the answer is there) as a header."""
    return (
        Response(status_code=204, headers={"X-Next": way})
        if "x-part" in request.headers
        else RedirectResponse(way, 303)
    )


def _text(fields: dict[str, list[str]]) -> str:
    """The text in the box, with the line ends that it had before the browser sent it."""
    return one(fields, "impression").replace("\r\n", "\n")


def _seen_version(fields: dict[str, list[str]]) -> int | None:
    sent = one(fields, "draft_version")
    if sent and not (sent.isdecimal() and len(sent) < 10):
        raise Invalid("The form's draft_version is not a number.")
    return int(sent) if sent else None


@router.post("/{request_id}/regenerate")
def regenerate(request: Request, the: TheDesk, caller: TheReader, request_id: UUID, fields: Form) -> Response:
    """Asks for another draft; what is in the box stays in it."""
    check_forgery(request, the.settings, caller, one(fields, "csrf"))
    demand(caller, "regenerate")
    words, text = Words.of(request), _text(fields)
    try:
        api.draft_again(the, caller, request_id)
    except Conflict:
        return _again(request, the, caller, request_id, text, words("notice.not_again"), 409)
    return _again(request, the, caller, request_id, text, words("notice.queued_again"), 200)


@router.post("/{request_id}/reopen")
def reopen(request: Request, the: TheDesk, caller: TheReader, request_id: UUID, fields: Form) -> Response:
    """Opens a signed case again; the signature stays, and the next one is a further version."""
    check_forgery(request, the.settings, caller, one(fields, "csrf"))
    demand(caller, "sign")
    with db.transaction(the.engine) as session:
        sign_offs.reopen(session, request_id, caller.actor)
    return RedirectResponse(f"/cases/{request_id}", 303)
