"""The whole schema, in the order in which data reaches it. migrations/ builds it; `alembic check` finds no difference.

Rows only; nothing here decides anything. SQLModel does not validate rows on construction, so values are validated where they enter.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from core.db import new_id
from core.states import AttemptState, Reason, ReportStatus, RequestState, RunState

KEY = sa.Text(collation="C")
"""Type of columns that are compared byte by byte, so that order is the same on every server."""

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _enum(kind: type[Any]) -> sa.Enum:
    """A text column with a CHECK of the enum's values; native enums would outlive a downgrade."""
    return sa.Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda e: [m.value for m in e],
        name=kind.__name__.lower(),
    )


def _id() -> Any:
    return Field(default_factory=new_id, primary_key=True)


def _now(**options: Any) -> Any:
    return Field(
        default=None,
        sa_type=sa.DateTime(timezone=True),
        sa_column_kwargs={"server_default": sa.func.now()},
        nullable=False,
        **options,
    )


def _at(**options: Any) -> Any:
    return Field(default=None, sa_type=sa.DateTime(timezone=True), nullable=True, **options)


def _key(**options: Any) -> Any:
    return Field(sa_type=KEY, **options)


def _json(**options: Any) -> Any:
    return Field(sa_type=JSONB, **options)


def _institution(**options: Any) -> Any:
    return Field(foreign_key="institutions.code", sa_type=KEY, **options)


# --- institutions and the reports they sign ------------------------------------------------------------------------------------


class Institution(SQLModel, table=True):
    """A hospital, as its TOML file last described it (core.institutions writes it)."""

    __tablename__ = "institutions"
    code: str = _key(primary_key=True)
    name: str
    language: str = "zh-Hans"
    sandbox: bool = Field(default=False, description="Pretend hospital: the only ones that the demo model drafts for")
    profile: dict[str, Any] = _json(default_factory=dict, description="core.institutions.Profile as JSON")
    updated_at: datetime = _now()


class Report(SQLModel, table=True):
    """One report of an institution in its newest, strongest version, raw and cleaned."""

    __tablename__ = "reports"
    __table_args__ = (
        sa.UniqueConstraint("institution", "source_id"),
        sa.Index("ix_reports_accession", "accession", postgresql_using="hash"),
        sa.Index("ix_reports_findings_hash", "findings_hash"),
    )
    id: UUID = _id()
    institution: str = _institution()
    source_id: str = _key(description="Pseudonym of the source's own key")
    accession: str | None = _key(default=None, nullable=True, description="Pseudonym, as in draft_requests")
    patient: str | None = _key(default=None, nullable=True, description="Pseudonym, as in draft_requests")
    version: int = 1
    status: ReportStatus = Field(sa_type=_enum(ReportStatus))
    content_hash: str = _key()
    source_hash: str | None = _key(
        default=None, nullable=True, description="The source's hash of the row as it was last read (ingest.overlap)"
    )
    findings_hash: str = _key()
    language: str = "zh-Hans"
    modality: str = "OT"
    systems: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    exam_title: str | None = None
    sex: str = "U"
    age: int | None = None
    patient_class: str | None = None
    history: str | None = None
    prior_impression: str | None = None
    findings_raw: str
    impression_raw: str
    findings: str = Field(description="Cleaned and de-identified, derived from findings_raw")
    impression: str = Field(description="Cleaned and de-identified, derived from impression_raw")
    cleaning_version: str
    author: str | None = None
    author_grade: str | None = None
    reviewer: str | None = None
    reviewer_grade: str | None = None
    examined_at: datetime | None = _at()
    reported_at: datetime | None = _at()
    signed_at: datetime | None = _at()
    modified_at: datetime | None = _at(description="The source's own time of change")
    split: str = Field(description="train or test, from the patient's hash, never reshuffled")
    excluded: str | None = Field(
        default=None,
        description="Why it never trains: duplicate, near_duplicate, label_left_over … (ingest.exclusions)",
    )
    removed: list[str] | None = Field(
        default=None,
        sa_type=ARRAY(sa.Text),
        description="What cleaning took out, by rule, once per place; null: nothing",
    )
    ingested_at: datetime = _now()
    updated_at: datetime = _now()


class FindingsSketch(SQLModel, table=True):
    """What the search for near duplicates knows of a report (ingest.duplicates); gone and made anew when the report changes."""

    __tablename__ = "findings_sketches"
    __table_args__ = (
        sa.Index("ix_findings_sketches_keeper", "keeper", postgresql_where=sa.text("keeper IS NOT NULL")),
    )
    report_id: UUID = Field(foreign_key="reports.id", primary_key=True)
    findings_hash: str = _key(description="Of the findings that the sketch was made of")
    side: str = Field(description="train or test, by the patient's split and the institution's role")
    sketch: bytes = Field(sa_type=sa.LargeBinary, description="MinHash of the findings' 5-grams, little-endian uint16")
    keeper: UUID | None = Field(default=None, description="The report that this one is nearly equal to and that stays")
    examined_at: datetime = _now()


class DuplicateSearch(SQLModel, table=True):
    """One search for equal and nearly equal findings; the newest tells when that was last done, and what it found."""

    __tablename__ = "duplicate_searches"
    id: UUID = _id()
    began_at: datetime = _now()
    ended_at: datetime | None = _at(description="None: it runs, or was stopped and the next one goes on")
    waiting: int = Field(default=0, description="Reports to look at when it began")
    examined: int = Field(default=0, description="Reports that were looked at")
    near: int = Field(default=0, description="Reports kept out because another has nearly the same findings")
    exact: int = Field(default=0, description="Reports that became, or ceased to be, exact duplicates")


class ReportVersion(SQLModel, table=True):
    """Every version that ever arrived of a report that has had more than one, in the order of arrival; never changed. Until a second one comes, the
    first stands in `reports` alone."""

    __tablename__ = "report_versions"
    __table_args__ = (sa.UniqueConstraint("report_id", "content_hash"),)
    id: UUID = _id()
    report_id: UUID = Field(foreign_key="reports.id")
    version: int
    status: ReportStatus = Field(sa_type=_enum(ReportStatus))
    content_hash: str = _key()
    findings_raw: str
    impression_raw: str
    author: str | None = None
    reviewer: str | None = None
    modified_at: datetime | None = _at()
    ingested_at: datetime = _now()


class Cursor(SQLModel, table=True):
    """How far a stream of an institution has been read; moved in the transaction that stores the rows."""

    __tablename__ = "cursors"
    institution: str = _institution(primary_key=True)
    stream: str = _key(primary_key=True)
    position_at: datetime | None = _at(description="Source time of the last row read")
    position_key: str | None = _key(default=None, nullable=True, description="Source key of the last row read")
    skew_ms: int | None = Field(default=None, description="Source clock minus the database's")
    polled_at: datetime | None = _at(description="End of the last poll that succeeded")
    failed_at: datetime | None = _at()
    failing_since: datetime | None = _at(description="First of the failures that no success has ended")
    failure: str | None = Field(default=None, description="Code of the last failure, cleared by a success")
    failure_message: str | None = Field(
        default=None, description="The sentence of that failure; never text of a report"
    )
    next_at: datetime | None = _at(description="When the ingest process means to poll next")
    rows_read: int = 0
    schema_fingerprint: str | None = None


class ReconciledDay(SQLModel, table=True):
    """One day of an institution's database, as it was last compared with what we hold."""

    __tablename__ = "reconciled_days"
    institution: str = _institution(primary_key=True)
    day: date = Field(primary_key=True, description="By the source's cursor time, in its own zone")
    source_rows: int
    source_hash: str = _key(description="Sum over the hashes of the day's rows, whatever their order")
    fetched: int = Field(default=0, description="Rows that this comparison found missing or changed, and loaded")
    absent: int = Field(default=0, description="Reports that we hold and the source no longer has")
    compared_at: datetime = _now()


class Absence(SQLModel, table=True):
    """A report that we hold and its institution's database did not have when it was last compared."""

    __tablename__ = "absences"
    report_id: UUID = Field(primary_key=True, foreign_key="reports.id")
    institution: str = _institution(index=True)
    times: int = Field(default=1, description="Comparisons in a row that missed it; from the second on it is excluded")
    excluded_before: str | None = Field(default=None, description="What reports.excluded said before")
    first_missed_at: datetime = _now()
    last_missed_at: datetime = _now()


class BackfillDay(SQLModel, table=True):
    """One day of an institution's past that a person asked for; done once all its rows are stored or in quarantine."""

    __tablename__ = "backfill_days"
    __table_args__ = (
        sa.Index("ix_backfill_days_waiting", "institution", "day", postgresql_where=sa.text("done_at IS NULL")),
    )
    institution: str = _institution(primary_key=True)
    day: date = Field(primary_key=True, description="By the source's cursor time, in its own zone")
    rows_read: int = 0
    stored: int = 0
    quarantined: int = 0
    asked_at: datetime = _now()
    done_at: datetime | None = _at()


class Quarantine(SQLModel, table=True):
    """A row or message that could not be taken, with its raw bytes and the reason; nothing is dropped."""

    __tablename__ = "quarantine"
    __table_args__ = (
        sa.UniqueConstraint("institution", "stream", "raw_hash", "reason"),
        sa.Index("ix_quarantine_open", "institution", "reason", postgresql_where=sa.text("resolved_at IS NULL")),
    )
    id: UUID = _id()
    institution: str = _key(description="Code as sent; no foreign key, since an unknown one is a reason to be here")
    stream: str = _key()
    reason: str = _key()
    raw: bytes = Field(sa_type=sa.LargeBinary, description="Sealed (AEAD) bytes as received")
    raw_hash: str = _key()
    key_id: str = _key()
    context: dict[str, Any] = _json(default_factory=dict, description="Column, offset, mapping version; never text")
    times: int = 1
    attempts: int = Field(
        default=0, sa_column_kwargs={"server_default": "0"}, description="Replays that found it still wrong"
    )
    first_seen_at: datetime = _now()
    last_seen_at: datetime = _now()
    resolved_at: datetime | None = _at()


class Identity(SQLModel, table=True):
    """The raw identifier behind a pseudonym, sealed; the worker's database role cannot read this table."""

    __tablename__ = "identities"
    institution: str = _institution(primary_key=True)
    purpose: str = _key(primary_key=True)
    pseudonym: str = _key(primary_key=True)
    sealed: bytes = Field(sa_type=sa.LargeBinary)
    key_id: str = _key()
    created_at: datetime = _now()


# --- requests, and the way to a draft ------------------------------------------------------------------------------------------


class DraftRequest(SQLModel, table=True):
    """A reporting system asks for an impression. Written by core.requests, claimed by worker.tasks, tended by core.clerk."""

    __tablename__ = "draft_requests"
    __table_args__ = (
        sa.Index(
            "uq_draft_requests_current",
            "institution",
            "accession",
            "findings_hash",
            unique=True,
            postgresql_where=sa.text("state NOT IN ('superseded', 'cancelled')"),
        ),
        sa.Index(
            "ix_draft_requests_claim", sa.text("is_stat DESC"), "due_at", postgresql_where=sa.text("state = 'queued'")
        ),
        sa.Index("ix_draft_requests_leased", "leased_until", postgresql_where=sa.text("state = 'drafting'")),
        sa.Index("ix_draft_requests_accession", "institution", "accession"),
        sa.Index("ix_draft_requests_changed", "institution", "changed_xid", "id"),
        sa.Index(
            "ix_draft_requests_open",
            "institution",
            "state",
            "due_at",
            postgresql_where=sa.text("state NOT IN ('signed', 'superseded', 'cancelled')"),
        ),
    )
    id: UUID = _id()
    institution: str = _institution()
    accession: str = _key(description="Pseudonym")
    patient: str = _key(description="Pseudonym")
    findings_hash: str = _key()
    door: str = Field(description="http, celery, hl7, fhir, table, folder, cli")
    sent_by: str = Field(description="Key or user that sent it")
    priority: str
    is_stat: bool = False
    is_critical: bool = Field(
        default=False, description="The findings hold a critical finding; moves it up and shows a banner"
    )
    accepted_at: datetime = _now()
    due_at: datetime = _now()
    not_before: datetime | None = _at()
    rung_at: datetime | None = _at()
    modality: str = "OT"
    systems: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    exam_title: str | None = None
    sex: str = "U"
    age: int | None = None
    patient_class: str | None = None
    history: str | None = None
    prior_impression: str | None = None
    author: str | None = None
    language: str = "zh-Hans"
    findings: str = Field(description="As received")
    callback_url: str | None = None
    state: RequestState = Field(default=RequestState.QUEUED, sa_type=_enum(RequestState))
    reason: Reason | None = Field(default=None, sa_type=_enum(Reason), nullable=True)
    lease: UUID | None = Field(default=None, description="Fencing token of the attempt that holds it")
    leased_until: datetime | None = _at()
    attempts: int = Field(default=0, description="Leases given since it was last queued by a person")
    crashes: int = Field(default=0, description="Of those, how many ran out without a word")
    draft_version: int | None = Field(default=None, description="Version of the visible draft")
    supersedes: UUID | None = Field(default=None, foreign_key="draft_requests.id")
    amends: UUID | None = Field(default=None, foreign_key="draft_requests.id")
    settled_at: datetime | None = _at()
    closed_at: datetime | None = _at()
    changed_xid: int = Field(
        default=0,
        sa_type=sa.BigInteger,
        description="Transaction of the last change, set by a trigger; cursor of the change feed",
    )


class Attempt(SQLModel, table=True):
    """One lease of a request; the id is the fencing token."""

    __tablename__ = "attempts"
    __table_args__ = (sa.Index("ix_attempts_request", "request_id"),)
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id")
    number: int
    worker: str
    state: AttemptState = Field(default=AttemptState.RUNNING, sa_type=_enum(AttemptState))
    model_version: str | None = _key(default=None, nullable=True)
    error: str | None = None
    started_at: datetime = _now()
    heartbeat_at: datetime = _now()
    ended_at: datetime | None = _at()


class Generation(SQLModel, table=True):
    """What the model wrote on one rung of the ladder, passed or not."""

    __tablename__ = "generations"
    __table_args__ = (sa.UniqueConstraint("attempt_id", "rung"),)
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id", index=True)
    attempt_id: UUID = Field(foreign_key="attempts.id")
    rung: int
    options: dict[str, Any] = _json(default_factory=dict)
    seed: int = Field(sa_type=sa.BigInteger)
    text: str
    finish: str
    prompt_tokens: int
    new_tokens: int
    seconds: float
    passed: bool
    issues: list[dict[str, Any]] = _json(default_factory=list)
    model_version: str = _key()
    prompt_version: str = _key()
    checks_version: str = _key()
    created_at: datetime = _now()


class Draft(SQLModel, table=True):
    """A text that passed the checks. At most one serving draft of a request is visible."""

    __tablename__ = "drafts"
    __table_args__ = (
        sa.UniqueConstraint("request_id", "version"),
        sa.Index("uq_drafts_visible", "request_id", unique=True, postgresql_where=sa.text("visible")),
        sa.CheckConstraint("NOT visible OR role = 'serving'", name="visible_is_serving"),
    )
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id")
    version: int
    role: str = "serving"
    visible: bool = True
    impression: str
    label: str
    generation_id: UUID = Field(foreign_key="generations.id")
    model_version: str = _key()
    prompt_version: str = _key()
    checks_version: str = _key()
    created_at: datetime = _now()


class DraftIssue(SQLModel, table=True):
    """One finding of the checks on a draft."""

    __tablename__ = "issues"
    id: UUID = _id()
    draft_id: UUID = Field(foreign_key="drafts.id", index=True)
    kind: str
    severity: str
    span_findings: list[int] | None = _json(default=None, nullable=True)
    span_impression: list[int] | None = _json(default=None, nullable=True)
    message: str
    rule: str


class RequestEvent(SQLModel, table=True):
    """What a person or a reporting system did with a draft: shown, opened, copied, accepted, rejected."""

    __tablename__ = "request_events"
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id", index=True)
    draft_version: int | None = None
    kind: str
    actor: str
    at: datetime = _now()


class Callback(SQLModel, table=True):
    """A webhook that is due: id and state only."""

    __tablename__ = "callbacks"
    __table_args__ = (sa.Index("ix_callbacks_due", "next_at", postgresql_where=sa.text("state = 'waiting'")),)
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id")
    url: str
    request_state: str
    state: str = Field(default="waiting", description="waiting, delivered, dead")
    tries: int = 0
    next_at: datetime = _now()
    last_error: str | None = None
    created_at: datetime = _now()


# --- what the radiologist signed, and what it says of us -----------------------------------------------------------------------


class SignOff(SQLModel, table=True):
    """A person's impression. `here` was signed on our page or API; `ris` was seen by ingest; the RIS's text wins for scoring and training."""

    __tablename__ = "sign_offs"
    __table_args__ = (sa.UniqueConstraint("request_id", "version"),)
    id: UUID = _id()
    request_id: UUID = Field(foreign_key="draft_requests.id")
    version: int
    place: str = Field(description="here or ris")
    text_role: str = Field(description="author or reviewer: whose text this is")
    impression: str
    draft_id: UUID | None = Field(
        default=None, foreign_key="drafts.id", description="Newest draft when it was signed; null: signed without one"
    )
    report_id: UUID | None = Field(default=None, foreign_key="reports.id")
    report_version: int | None = None
    signer: str = Field(description="User id, or pseudonym of the RIS's doctor")
    signer_grade: str | None = None
    exposure: str = Field(description="unassisted, hold_back, not_opened, verbatim, light_edit, heavy_edit")
    signed_at: datetime = _now()


class Withdrawal(SQLModel, table=True):
    """A sign-off whose report the RIS has taken back: it is not scored while this row stands. A report that is signed again removes it."""

    __tablename__ = "withdrawals"
    sign_off_id: UUID = Field(primary_key=True, foreign_key="sign_offs.id")
    status: ReportStatus = Field(sa_type=_enum(ReportStatus), description="What the report became")
    withdrawn_at: datetime = _now()


class ScoreRow(SQLModel, table=True):
    """The draft against the signed text, by one version of the scorer; never changed."""

    __tablename__ = "scores"
    __table_args__ = (sa.UniqueConstraint("sign_off_id", "scorer"),)
    id: UUID = _id()
    sign_off_id: UUID = Field(foreign_key="sign_offs.id")
    draft_id: UUID | None = Field(default=None, foreign_key="drafts.id")
    scorer: str = _key()
    r1: float
    r2: float
    rl: float
    char_rl: float
    edit_distance: int
    fact_f1: float | None = None
    detail: dict[str, Any] = _json(default_factory=dict)
    created_at: datetime = _now()


# --- learning ------------------------------------------------------------------------------------------------------------------


class Dataset(SQLModel, table=True):
    """A frozen training set: the files lie under the home, the row says which."""

    __tablename__ = "datasets"
    id: str = _key(primary_key=True, description="First 16 hex digits of the digest")
    digest: str = _key(unique=True)
    policy: dict[str, Any] = _json()
    counts: dict[str, Any] = _json()
    path: str
    created_at: datetime = _now()


class ModelVersion(SQLModel, table=True):
    """An adapter directory whose manifest was written last; never changed."""

    __tablename__ = "model_versions"
    id: str = _key(primary_key=True)
    base: str
    base_digest: str = _key()
    digest: str = _key(unique=True, description="SHA-256 over the manifest")
    path: str
    manifest: dict[str, Any] = _json()
    created_at: datetime = _now()
    collected_at: datetime | None = _at(description="When its files were removed (valuer models gc); the row stays")


class ActiveModel(SQLModel, table=True):
    """The pointer that promotion moves: which version serves an institution; `*` is everybody else."""

    __tablename__ = "active_models"
    institution: str = _key(primary_key=True)
    model_version: str = _key(foreign_key="model_versions.id")
    moved_by: str
    moved_at: datetime = _now()


class Promotion(SQLModel, table=True):
    """Every move of the pointer and every refusal to move it."""

    __tablename__ = "promotions"
    id: UUID = _id()
    institution: str = _key()
    model_version: str = _key(foreign_key="model_versions.id")
    previous: str | None = _key(default=None, nullable=True)
    kind: str = Field(description="promoted, rolled_back, held")
    gate: dict[str, Any] = _json(default_factory=dict)
    reason: str | None = None
    actor: str
    at: datetime = _now()


class TrainingRun(SQLModel, table=True):
    """One launch of training."""

    __tablename__ = "training_runs"
    id: UUID = _id()
    profile: str
    options: dict[str, Any] = _json(default_factory=dict)
    dataset: str | None = _key(default=None, nullable=True, foreign_key="datasets.id")
    state: RunState = Field(default=RunState.QUEUED, sa_type=_enum(RunState))
    progress: dict[str, Any] = _json(default_factory=dict)
    error: str | None = None
    model_version: str | None = _key(default=None, nullable=True, foreign_key="model_versions.id")
    requested_by: str
    worker: str | None = None
    created_at: datetime = _now()
    started_at: datetime | None = _at()
    heartbeat_at: datetime | None = _at()
    ended_at: datetime | None = _at()


class Evaluation(SQLModel, table=True):
    """What a model version, a baseline or a row of the model pool scored on which reports, through the serving path."""

    __tablename__ = "evaluations"
    __table_args__ = (sa.Index("ix_evaluations_subject", "subject", "dataset"),)
    id: UUID = _id()
    subject: str | None = _key(
        default=None, nullable=True, description="model:ID, base:NAME, baseline:NAME or pool:NAME"
    )
    model_version: str | None = _key(default=None, nullable=True, foreign_key="model_versions.id", index=True)
    dataset: str | None = _key(default=None, nullable=True, foreign_key="datasets.id")
    artefact: str | None = _key(
        default=None, nullable=True, description="Digest of exactly what drafted: weights, their form, prompt, decoding"
    )
    scorer: str = _key()
    result: dict[str, Any] = _json()
    created_at: datetime = _now()
    finished_at: datetime | None = _at(description="Null: it can be taken up again")


class JudgedCase(SQLModel, table=True):
    """One case of an evaluation: what was drafted, how it scored and what the checks said. Written once, as soon as it is drafted."""

    __tablename__ = "judged_cases"
    evaluation_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid, sa.ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    )
    case_id: str = _key(primary_key=True, description="training.dataset.Case.id, or regression:ID")
    institution: str = _key()
    modality: str
    systems: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    sex: str
    age_band: str | None = None
    draft: str = Field(description="Empty: there was none, and outcome says why")
    outcome: str
    scores: dict[str, Any] = _json(description="r1 r2 rl core_r1 core_r2 core_rl fact_f1 (null: nothing to compare)")
    issues: dict[str, Any] = _json(description="severity to kinds, of the chosen draft")
    degenerate: list[str] = Field(
        default_factory=list, sa_type=ARRAY(sa.Text), description="Degenerate kinds of the first generation"
    )
    finish: str | None = None
    new_tokens: int = 0
    seconds: float = 0.0


class RegressionCase(SQLModel, table=True):
    """A mistake that was confirmed and must not come back: every candidate drafts it, and one that fails it is not promoted."""

    __tablename__ = "regression_cases"
    id: UUID = _id()
    institution: str = _key()
    case: dict[str, Any] = _json(description="training.dataset.Case, cleaned and de-identified")
    forbids: list[str] = Field(sa_type=ARRAY(sa.Text), description="Kinds of issues that its draft may not have")
    fact_floor: float = Field(description="Least fact F1 against the signed text, 0-1")
    why: str
    approved_by: str
    created_at: datetime = _now()
    retired_at: datetime | None = _at()


class TrainingSchedule(SQLModel, table=True):
    """When to train again without being asked (training.schedule)."""

    __tablename__ = "training_schedules"
    name: str = _key(primary_key=True)
    profile: str
    options: dict[str, Any] = _json(default_factory=dict, description="training.runs.Options")
    cron: str | None = Field(default=None, description="Five fields, UTC")
    after_reports: int | None = Field(default=None, description="So many reports newly signed since the last run")
    on_drift: bool = False
    created_by: str
    created_at: datetime = _now()
    last_run: UUID | None = Field(default=None, foreign_key="training_runs.id")
    last_run_at: datetime | None = _at()


# --- blinded reading by experts ------------------------------------------------------------------------------------------------


class ExpertStudy(SQLModel, table=True):
    """One blinded comparison of impressions: which cases, which writers, by which seed (training.experts makes it)."""

    __tablename__ = "expert_studies"
    id: str = _key(primary_key=True)
    title: str
    seed: int
    writers: list[str] = Field(sa_type=ARRAY(sa.Text), description="human, or subjects of evaluations")
    created_by: str
    created_at: datetime = _now()


class ExpertText(SQLModel, table=True):
    """One impression of one case, to be read without knowing who wrote it."""

    __tablename__ = "expert_texts"
    __table_args__ = (sa.UniqueConstraint("study", "case_id", "writer"),)
    id: UUID = _id()
    study: str = _key(foreign_key="expert_studies.id")
    case_id: str = _key()
    writer: str = _key(description="Never shown to a reader")
    institution: str = _key()
    systems: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    in_house: bool
    modality: str
    exam_title: str | None = None
    findings: str
    impression: str


class ExpertAssignment(SQLModel, table=True):
    """A text that one reader is asked to rate, and its place in the reader's own random order."""

    __tablename__ = "expert_assignments"
    __table_args__ = (
        sa.UniqueConstraint("study", "reader", "text_id"),
        sa.UniqueConstraint("study", "reader", "position"),
    )
    id: UUID = _id()
    study: str = _key(foreign_key="expert_studies.id")
    text_id: UUID = Field(foreign_key="expert_texts.id")
    reader: str = _key(description="Login of a user, or a name outside of this system")
    grade: str = Field(description="junior, intermediate or senior")
    position: int


class ExpertRating(SQLModel, table=True):
    """One reader's answer on one metric: a score or NA, the passages it rests on, and why. Given again, the newer one stands."""

    __tablename__ = "expert_ratings"
    assignment_id: UUID = Field(foreign_key="expert_assignments.id", primary_key=True)
    metric: str = _key(primary_key=True)
    score: int | None = Field(default=None, description="0-100; null: NA")
    excerpts: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    explanations: list[str] = Field(default_factory=list, sa_type=ARRAY(sa.Text))
    rated_at: datetime = _now()


# --- who may do what, and what was done ----------------------------------------------------------------------------------------


class ApiKey(SQLModel, table=True):
    """A system's key; only its hash is stored."""

    __tablename__ = "api_keys"
    id: str = _key(primary_key=True, description="Public part of the key")
    name: str
    role: str = Field(description="system, viewer, admin")
    institution: str | None = _institution(default=None, nullable=True)
    secret_hash: str = _key()
    created_at: datetime = _now()
    used_at: datetime | None = _at()
    revoked_at: datetime | None = _at()


class User(SQLModel, table=True):
    """A person who signs in."""

    __tablename__ = "users"
    id: UUID = _id()
    login: str = _key(unique=True)
    display_name: str
    password_hash: str | None = None
    role: str = Field(description="radiologist or admin")
    grade: str | None = Field(default=None, description="junior, intermediate, senior")
    institution: str | None = _institution(default=None, nullable=True)
    created_at: datetime = _now()
    disabled_at: datetime | None = _at()


class UserSession(SQLModel, table=True):
    """A signed-in browser, or a one-time link that becomes one; only hashes of the secrets are stored."""

    __tablename__ = "user_sessions"
    id: UUID = _id()
    user_id: UUID = Field(foreign_key="users.id")
    kind: str = Field(description="browser, link or token")
    secret_hash: str = _key(unique=True)
    csrf: str | None = None
    created_at: datetime = _now()
    used_at: datetime | None = _at()
    expires_at: datetime = Field(sa_type=sa.DateTime(timezone=True), nullable=False)
    ended_at: datetime | None = _at()


class AuditEvent(SQLModel, table=True):
    """Who did what to which thing. Written in the transaction of the deed; chained by hash in commit order by the clerk."""

    __tablename__ = "audit_events"
    __table_args__ = (sa.Index("ix_audit_events_unsealed", "id", postgresql_where=sa.text("seq IS NULL")),)
    id: UUID = _id()
    at: datetime = _now()
    actor: str
    action: str
    institution: str | None = _key(default=None, nullable=True)
    subject: str = Field(description="Kind and id of the thing, never its content")
    detail: dict[str, Any] = _json(default_factory=dict)
    seq: int | None = Field(default=None, sa_type=sa.BigInteger, unique=True, nullable=True)
    hash: str | None = _key(default=None, nullable=True)


class Process(SQLModel, table=True):
    """A running process of ours and when it was last heard of."""

    __tablename__ = "processes"
    name: str = _key(primary_key=True, description="kind@host:pid")
    kind: str
    pid: int
    host: str
    state: str = Field(default="starting", description="starting, ready, draining")
    detail: dict[str, Any] = _json(default_factory=dict)
    started_at: datetime = _now()
    heartbeat_at: datetime = _now()
