"""What the HTTP API says and hears, for `/openapi.json` and for the clients that are made from it. The answers are made by core.requests."""

from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import Invalid


class Failure(BaseModel):
    """Every error: a stable code and one sentence."""

    error: str
    detail: str


class Standing(BaseModel):
    """A request and where it stands."""

    id: UUID
    state: str


class IssueOut(BaseModel):
    """One point to check; spans are half-open, in code points of the findings as received and of the draft."""

    kind: str
    severity: Literal["red", "amber", "info"]
    span_findings: tuple[int, int] | None
    span_impression: tuple[int, int] | None
    message: str


class SentenceOut(BaseModel):
    """One sentence of a draft and the clauses of the findings behind it: `supported`, `unsupported`, `unread` (no known word) or `advice`."""

    span: tuple[int, int]
    standing: Literal["supported", "unsupported", "unread", "advice"]
    findings: list[tuple[int, int]]


class FindingOut(BaseModel):
    """One positive finding, its severity (0 a sign only, 4 must not be missed), and the draft's words for it (none: left out)."""

    span: tuple[int, int]
    name: str
    severity: int = Field(ge=0, le=4)
    omitted: bool
    impression: list[tuple[int, int]]


class EvidenceOut(BaseModel):
    """What a draft rests on, linked by rules. Findings that it leaves out come first, the gravest of them first."""

    sentences: list[SentenceOut]
    findings: list[FindingOut]


class DraftOut(BaseModel):
    """A draft; never final. Show `label` beside the text: it is not inside of it. `evidence` is told when one request is looked at."""

    version: int
    impression: str
    issues: list[IssueOut]
    model: str
    label: str
    evidence: EvidenceOut | None = None


class SignatureOut(BaseModel):
    """What a person signed last: `here` on our page or API, or in the `ris`."""

    version: int
    impression: str
    place: Literal["here", "ris"]


class WithdrawnOut(BaseModel):
    """That the RIS has taken back what was signed, or no longer has it."""

    version: int
    place: Literal["here", "ris"]
    status: str


class RequestOut(Standing):
    """A request as its sender sees it. While it waits, looking at it alone also tells whole seconds: `elapsed_s` since it came, and
    `expected_s` until its draft, by the drafts of the last hour; absent when there were none."""

    reason: str | None = None
    supersedes: UUID | None = None
    amends: UUID | None = None
    draft: DraftOut | None = None
    signed: SignatureOut | None = None
    withdrawn: WithdrawnOut | None = None
    elapsed_s: int | None = None
    expected_s: int | None = None


class RequestsOut(BaseModel):
    """Requests of an accession number, newest first, or of the change feed, oldest change first, with the cursor to go on from."""

    requests: list[RequestOut]
    cursor: str | None = None


class WorklistEntry(Standing):
    """One line of the worklist."""

    institution: str
    accession: str | None
    reason: str | None
    priority: str
    critical: bool
    modality: str
    systems: list[str]
    exam_title: str | None
    sex: str
    age: int | None
    accepted_at: str
    due_at: str
    draft_version: int | None


class WorklistOut(BaseModel):
    """What waits, in the order in which it should be read."""

    requests: list[WorklistEntry]


class SignedOut(Standing):
    """A signature; `version` counts the signatures of this request."""

    version: int


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


Shape = TypeVar("Shape", bound=_In)


class SignIn(_In):
    """A person's impression; `draft_version` is the draft they saw, null when they wrote without one. `confirmed`: the numbers, from 1, of the
    draft's issues that they have confirmed; institutions with `confirm_red` demand the red ones."""

    impression: str
    draft_version: int | None = Field(ge=1, le=2**31 - 1)
    confirmed: list[int] = Field(default_factory=list, max_length=1000)


class EventIn(_In):
    """What was done with a draft in the reporting system."""

    kind: Literal["shown", "opened", "copied", "accepted", "rejected"]
    draft_version: int | None = Field(None, ge=1, le=2**31 - 1)


def fit(shape: type[Shape], payload: Any) -> Shape:
    """The payload as `shape`. Raises Invalid with a sentence that names the fields, never their values."""
    try:
        return shape.model_validate(payload)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise Invalid(f"The request does not fit: {'; '.join(faults[:5])}.") from None


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses."""
    return {status: {"model": Failure} for status in statuses}


def body_of(shape: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """OpenAPI request body for a handler that reads its body itself (worklist.bodies), for the charset's sake."""
    schema = shape.model_json_schema()
    whole = _in_place(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole, "example": examples}}}}


def _in_place(node: Any, named: dict[str, Any]) -> Any:
    """A schema with what it refers to put in its place: `#/$defs` would be looked for at the top of the whole document."""
    if isinstance(node, list):
        return [_in_place(each, named) for each in node]
    if not isinstance(node, dict):
        return node
    meant = named[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {key: _in_place(value, named) for key, value in (meant | node).items() if key != "$ref"}
