"""The worklist's first page: what waits, in the order in which it should be read. A change elsewhere fetches the list anew (static/list.js)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlmodel import Session, col

from core import answers, db, institutions, requests
from core.errors import NotFound
from core.identity import reveal
from core.states import UNCLOSED, RequestState
from core.tables import DraftRequest, Institution
from worklist.desk import Desk, TheDesk, TheReader
from worklist.rendering import render
from worklist.words import Words

LIMIT = 200
Tab = Literal["open", "ready", "alone", "coming"]
TABS: dict[Tab, frozenset[RequestState]] = {
    "open": UNCLOSED,
    "ready": frozenset({RequestState.DRAFTED}),
    "alone": frozenset({RequestState.WITHHELD, RequestState.NEEDS_HUMAN}),
    "coming": frozenset({RequestState.QUEUED, RequestState.DRAFTING}),
}

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is shown."""

    id: str
    institution: str
    accession: str | None
    state: str
    priority: str
    critical: bool
    modality: str
    title: str
    person: str
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """The signature that brought the reader back here."""

    id: UUID
    accession: str
    here: bool


def title_of(words: Words, exam_title: str | None, systems: list[str]) -> str:
    """The examination as the sender named it, else its body systems."""
    return exam_title or " · ".join(words(f"system.{system}") for system in systems)


def person_of(words: Words, sex: str, age: int | None) -> str:
    """Sex and age, as far as they are known; never a name."""
    return " ".join(part for part in (words(f"sex.{sex}"), "" if age is None else words("time.years", age=age)) if part)


def _line(words: Words, entry: dict[str, Any]) -> Line:
    return Line(
        id=entry["id"],
        institution=entry["institution"],
        accession=entry["accession"],
        state=entry["state"],
        priority=entry["priority"],
        critical=entry["critical"],
        modality=entry["modality"],
        title=title_of(words, entry["exam_title"], entry["systems"]),
        person=person_of(words, entry["sex"], entry["age"]),
        accepted_at=datetime.fromisoformat(entry["accepted_at"]),
    )


def _counts(session: Session, institution: str | None) -> list[tuple[Tab, int]]:
    query = (
        sa.select(col(DraftRequest.state), sa.func.count())
        .where(col(DraftRequest.state).in_(sorted(UNCLOSED)))
        .group_by(col(DraftRequest.state))
    )
    if institution is not None:
        query = query.where(col(DraftRequest.institution) == institution)
    found = dict(iter(session.execute(query)))
    return [(tab, sum(found.get(state, 0) for state in states)) for tab, states in TABS.items()]


def _list(session: Session, the: Desk, caller: TheReader, words: Words, show: Tab) -> dict[str, Any]:
    entries = answers.worklist(session, caller.actor, TABS[show], LIMIT, the.keyring)
    return {
        "caller": caller,
        "show": show,
        "tabs": _counts(session, caller.actor.institution),
        "entries": [_line(words, entry) for entry in entries],
        "several": caller.actor.institution is None,
        "limit": LIMIT,
    }


def _done(session: Session, the: Desk, caller: TheReader, request_id: UUID | None) -> Done | None:
    if request_id is None:
        return None
    try:
        row = requests.get(session, request_id, caller.actor)
    except NotFound:
        return None
    if row.state is not RequestState.SIGNED:
        return None
    accession = reveal(session, the.keyring, row.institution, "accession", row.accession)
    return Done(row.id, accession or "", institutions.profile(session, row.institution).sign == "sign_here")


@router.get("/")
def page(
    request: Request,
    the: TheDesk,
    caller: TheReader,
    show: Tab = "open",
    missing: bool = False,
    signed: UUID | None = None,
) -> Response:
    """The list in its frame."""
    with db.transaction(the.engine) as session:
        context = _list(session, the, caller, Words.of(request), show)
        context |= {"missing": missing, "done": _done(session, the, caller, signed)}
    return render(request, "list.html", context)


@router.get("/parts/list")
def part(request: Request, the: TheDesk, caller: TheReader, show: Tab = "open") -> Response:
    """The list alone."""
    with db.transaction(the.engine) as session:
        context = _list(session, the, caller, Words.of(request), show)
    return render(request, "list_part.html", context)


@router.get("/find")
def find(the: TheDesk, caller: TheReader, accession: Annotated[str, Query(min_length=1, max_length=128)]) -> Response:
    """Opens the newest request of an accession number, as a bar code reader types it."""
    with db.transaction(the.engine) as session:
        own = caller.actor.institution
        codes = (
            [own]
            if own is not None
            else session.execute(sa.select(col(Institution.code)).order_by(col(Institution.code))).scalars().all()
        )
        found = [
            row for code in codes for row in answers.find(session, the.keyring, accession.strip(), caller.actor, code)
        ]
    newest = max(found, key=lambda row: (row.accepted_at, row.id), default=None)
    return RedirectResponse("/?missing=true" if newest is None else f"/cases/{newest.id}", 303)
