"""The HTTP door: the calls of docs/interfaces.md, each a few lines over core.requests. Decides nothing about requests itself.

A handler recognises its caller, works in one transaction, rings the bell after the commit and answers. None holds a connection while it waits.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from core import answers, audit, db, pace, queue, requests, sign_offs
from core.errors import Invalid
from core.institutions import CODE
from core.states import CLOSED, SETTLED, RequestState
from core.tables import DraftRequest
from worklist import access
from worklist.access import Caller
from worklist.bodies import Payload
from worklist.desk import Desk, TheCaller, TheDesk, demand
from worklist.evidence import evidence_of, pair_of
from worklist.shapes import (
    EventIn,
    RequestOut,
    RequestsOut,
    SignedOut,
    SignIn,
    Standing,
    WorklistOut,
    body_of,
    failures,
    fit,
)

LONGEST_WAIT = 60.0
"""Seconds that a look may wait for an answer; a longer `wait` is cut to this."""
HEARTBEAT = 15.0
"""Seconds after which a stream, busy or not, looks again whether its caller may still listen."""

ANSWERED = SETTLED | CLOSED

router = APIRouter(prefix="/v1", responses=failures(401, 403, 404, 422, 503))


def _standing(row: DraftRequest) -> dict[str, str]:
    return {"id": str(row.id), "state": str(row.state)}


@router.post(
    "/requests",
    status_code=202,
    response_model=Standing,
    responses={
        200: {"model": Standing, "description": "The same current request was there already"},
        **failures(400, 413, 415),
    },
    openapi_extra=body_of(
        requests.RequestIn,
        institution="sandbox-1",
        accession="CT20260001",
        modality="CT",
        body_part="胸部",
        patient={"id": "P0001", "sex": "F", "age": 61},
        findings="右肺上叶见一结节，大小约8mm×6mm，边缘光滑。",
        priority="routine",
    ),
)
def send(desk: TheDesk, caller: TheCaller, payload: Payload) -> JSONResponse:
    """Asks for a draft. The same current request again is answered 200 with the same id."""
    demand(caller, "send")
    body = requests.parse(payload)
    with db.transaction(desk.engine) as session:
        accepted = requests.accept(session, desk.keyring, body, caller.actor, door="http", queue=desk.settings)
    requests.ring(accepted)
    location = {"Location": f"/v1/requests/{accepted.id}"}
    return JSONResponse(
        {"id": str(accepted.id), "state": str(accepted.state)}, 202 if accepted.created else 200, location
    )


@router.get("/requests/{request_id}", response_model=RequestOut)
async def look(
    desk: TheDesk, caller: TheCaller, request_id: UUID, wait: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0
) -> JSONResponse:
    """A request and its draft. With `wait`, the answer comes once it is settled or closed, after at most 60 seconds."""
    demand(caller, "read")
    if wait <= 0:
        return JSONResponse((await run_in_threadpool(_look, desk, caller, request_id))[0])
    clock = asyncio.get_running_loop()
    until = clock.time() + min(wait, LONGEST_WAIT)
    async with desk.watch.listen(request_id=request_id) as listener:
        while True:
            answer, state = await run_in_threadpool(_look, desk, caller, request_id)
            left = until - clock.time()
            if state in ANSWERED or left <= 0 or desk.watch.closing:
                return JSONResponse(answer)
            await listener.next(left)


def _look(desk: Desk, caller: Caller, request_id: UUID) -> tuple[dict[str, Any], RequestState]:
    with db.transaction(desk.engine) as session:
        row = requests.get(session, request_id, caller.actor)
        answer = answers.view(session, row)
        if (waiting := pace.wait(session, row)) is not None:
            answer |= {name: value for name, value in asdict(waiting).items() if value is not None}
        if caller.actor.kind == "user" and "draft" in answer:
            audit.record(
                session,
                str(caller.actor),
                "draft.read",
                f"request:{row.id}",
                institution=row.institution,
                version=row.draft_version,
            )
        state = row.state
        pair = pair_of(row, answer["draft"]["impression"], desk.settings.home) if "draft" in answer else None
    if pair is not None:
        answer["draft"]["evidence"] = evidence_of(pair).as_json()
    return answer, state


@router.get("/requests", response_model=RequestsOut)
def find(
    desk: TheDesk,
    caller: TheCaller,
    accession: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    institution: Annotated[str | None, Query(pattern=f"^{CODE.pattern}$")] = None,
    since: Annotated[str | None, Query(max_length=80)] = None,
) -> JSONResponse:
    """Looks requests up by accession number, or tells those that changed after the cursor `since` (empty: from the beginning)."""
    demand(caller, "read")
    if (accession is None) == (since is None):
        raise Invalid("Ask either by accession or by since.", code="which_look_up")
    with db.transaction(desk.engine) as session:
        if accession is not None:
            rows = answers.find(session, desk.keyring, accession, caller.actor, institution)
            return JSONResponse({"requests": [answers.view(session, row) for row in rows]})
        changed, cursor = answers.changes(session, caller.actor, since or None)
    return JSONResponse({"requests": changed, "cursor": cursor})


@router.delete("/requests/{request_id}", response_model=Standing, responses=failures(409))
def cancel(desk: TheDesk, caller: TheCaller, request_id: UUID) -> JSONResponse:
    """Takes a request back. Cancelling twice is no error; a signed or superseded one answers 409."""
    demand(caller, "cancel")
    with db.transaction(desk.engine) as session:
        row = requests.cancel(session, request_id, caller.actor)
    return JSONResponse(_standing(row))


@router.post("/requests/{request_id}/regenerate", status_code=202, response_model=Standing, responses=failures(409))
def regenerate(desk: TheDesk, caller: TheCaller, request_id: UUID) -> JSONResponse:
    """Asks for another draft of a settled request."""
    demand(caller, "regenerate")
    return JSONResponse(_standing(draft_again(desk, caller, request_id)), 202)


def draft_again(desk: Desk, caller: Caller, request_id: UUID) -> DraftRequest:
    """Puts a settled request back into the queue and rings; the page's button does the same."""
    with db.transaction(desk.engine) as session:
        row = requests.regenerate(session, request_id, caller.actor)
    requests.ring(requests.Accepted(row.id, row.state, created=False, is_stat=row.is_stat, rings=True))
    return row


@router.post(
    "/requests/{request_id}/events",
    status_code=201,
    response_model=EventIn,
    responses=failures(400, 413, 415),
    openapi_extra=body_of(EventIn, kind="shown", draft_version=1),
)
def note(desk: TheDesk, caller: TheCaller, request_id: UUID, payload: Payload) -> JSONResponse:
    """Notes what was done with a draft elsewhere: shown, opened, copied, accepted or rejected."""
    demand(caller, "report")
    event = fit(EventIn, payload)
    with db.transaction(desk.engine) as session:
        requests.record_event(session, request_id, event.kind, caller.actor, event.draft_version)
    return JSONResponse(event.model_dump(), 201)


@router.post(
    "/requests/{request_id}/sign",
    response_model=SignedOut,
    responses=failures(400, 409, 413, 415),
    openapi_extra=body_of(SignIn, impression="右肺上叶结节，建议3个月后复查。", draft_version=1),
)
def sign(desk: TheDesk, caller: TheCaller, request_id: UUID, payload: Payload) -> JSONResponse:
    """A person signs. A system's key is refused (403), and so is the signature of an outdated draft (409)."""
    demand(caller, "sign")
    body = fit(SignIn, payload)
    version = put_signature(desk, caller, request_id, body.impression, body.draft_version, body.confirmed)
    return JSONResponse({"id": str(request_id), "state": str(RequestState.SIGNED), "version": version})


def put_signature(
    desk: Desk, caller: Caller, request_id: UUID, impression: str, draft_version: int | None, confirmed: Collection[int]
) -> int:
    """Signs and asks for the score; the page's button does the same. Returns the signature's version."""
    with db.transaction(desk.engine) as session:
        signed = sign_offs.sign(
            session,
            request_id,
            impression,
            draft_version,
            caller.actor,
            signer_grade=caller.grade,
            confirmed=confirmed,
        )
    queue.ring_score(signed.id)
    return signed.version


@router.get("/worklist", response_model=WorklistOut)
def worklist(
    desk: TheDesk,
    caller: TheCaller,
    state: Annotated[list[RequestState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> JSONResponse:
    """What waits, stat first, then by due time; by default everything that is not closed."""
    demand(caller, "read")
    with db.transaction(desk.engine) as session:
        entries = answers.worklist(session, caller.actor, state, limit, desk.keyring)
    return JSONResponse({"requests": entries})


@router.get("/worklist/stream", response_class=EventSourceResponse)
async def stream(desk: TheDesk, caller: TheCaller) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `ready` once, then `change` with `{"id","state"}` whenever a request of the caller's institution changed."""
    demand(caller, "read")
    async with desk.watch.listen(caller.actor.institution) as listener:
        yield ServerSentEvent(event="ready", data={})
        clock = asyncio.get_running_loop()
        look_again = clock.time() + HEARTBEAT
        while not desk.watch.closing:
            change = await listener.next(max(0.0, look_again - clock.time()))
            if clock.time() >= look_again:
                if not await run_in_threadpool(_may_listen, desk, caller):
                    return
                look_again = clock.time() + HEARTBEAT
            if change is not None:
                yield ServerSentEvent(event="change", data={"id": str(change.id), "state": change.state})


def _may_listen(desk: Desk, caller: Caller) -> bool:
    with db.transaction(desk.engine) as session:
        return access.still_open(session, caller)
