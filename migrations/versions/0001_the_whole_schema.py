"""The whole schema, its triggers and the role under which drafting workers read it.

The tables are what `core.tables` says; beyond them: a trigger that stamps each change of a draft request with its transaction (the cursor of
the change feed), triggers that refuse to change what is append-only, and the role `valuer_worker`, which cannot read identities.
"""

from collections.abc import Sequence

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


APPEND_ONLY = ("report_versions", "generations", "sign_offs", "scores", "promotions")

TRIGGERS = """
CREATE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changed_xid := pg_current_xact_id()::text::bigint;
  RETURN NEW;
END $$;
CREATE TRIGGER stamp_change BEFORE INSERT OR UPDATE ON draft_requests FOR EACH ROW EXECUTE FUNCTION stamp_change();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION refuse_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.seq IS NOT NULL THEN
    RAISE EXCEPTION 'a sealed audit event cannot be changed' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER refuse_sealed BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse_sealed();
"""

# A server whose administrator keeps roles to themselves creates the role by hand (docs/operations.md); without it the grants are left out.
ROLE = """
DO $$
BEGIN
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'valuer_worker') THEN
      CREATE ROLE valuer_worker NOLOGIN;
    END IF;
    EXECUTE format('GRANT valuer_worker TO %I', current_user);
  EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege OR invalid_grant_operation THEN
    NULL;
  END;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'valuer_worker') THEN
    GRANT USAGE ON SCHEMA public TO valuer_worker;
    GRANT SELECT ON institutions, draft_requests, attempts, generations, drafts, issues, request_events, callbacks, sign_offs, scores,
      model_versions, active_models, processes, audit_events, reports, report_versions, alembic_version TO valuer_worker;
    GRANT INSERT ON attempts, generations, drafts, issues, callbacks, scores, audit_events, processes TO valuer_worker;
    GRANT UPDATE ON draft_requests, attempts, drafts, processes TO valuer_worker;
    GRANT DELETE ON processes TO valuer_worker;
  END IF;
END $$;
"""


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("action", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=True),
        sa.Column("subject", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_events_seq")),
    )
    op.create_index(
        "ix_audit_events_unsealed", "audit_events", ["id"], unique=False, postgresql_where=sa.text("seq IS NULL")
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.Text(collation="C"), nullable=False),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("path", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("digest", name=op.f("uq_datasets_digest")),
    )
    op.create_table(
        "institutions",
        sa.Column("code", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("language", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("sandbox", sa.Boolean(), nullable=False),
        sa.Column("profile", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_institutions")),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("base", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("base_digest", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.Text(collation="C"), nullable=False),
        sa.Column("path", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("manifest", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("digest", name=op.f("uq_model_versions_digest")),
    )
    op.create_table(
        "processes",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("state", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_processes")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C"), nullable=False),
        sa.Column("reason", sa.Text(collation="C"), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("raw_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("key_id", sa.Text(collation="C"), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sa.UniqueConstraint(
            "institution", "stream", "raw_hash", "reason", name=op.f("uq_quarantine_institution_stream_raw_hash_reason")
        ),
    )
    op.create_index(
        "ix_quarantine_open",
        "quarantine",
        ["institution", "reason"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "active_models",
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("model_version", sa.Text(collation="C"), nullable=False),
        sa.Column("moved_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_version"], ["model_versions.id"], name=op.f("fk_active_models_model_version")),
        sa.PrimaryKeyConstraint("institution", name=op.f("pk_active_models")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("role", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=True),
        sa.Column("secret_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_api_keys_institution")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "cursors",
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("stream", sa.Text(collation="C"), nullable=False),
        sa.Column("position_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("position_key", sa.Text(collation="C"), nullable=True),
        sa.Column("skew_ms", sa.Integer(), nullable=True),
        sa.Column("polled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("rows_read", sa.Integer(), nullable=False),
        sa.Column("schema_fingerprint", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_cursors_institution")),
        sa.PrimaryKeyConstraint("institution", "stream", name=op.f("pk_cursors")),
    )
    op.create_table(
        "draft_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("accession", sa.Text(collation="C"), nullable=False),
        sa.Column("patient", sa.Text(collation="C"), nullable=False),
        sa.Column("findings_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("door", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("sent_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("priority", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("is_stat", sa.Boolean(), nullable=False),
        sa.Column("is_critical", sa.Boolean(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("modality", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("systems", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("exam_title", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("sex", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("age", sa.Integer(), nullable=True),
        sa.Column("patient_class", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("history", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("prior_impression", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("author", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("language", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("findings", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("callback_url", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "drafting",
                "drafted",
                "withheld",
                "needs_human",
                "signed",
                "superseded",
                "cancelled",
                name="requeststate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "reason",
            sa.Enum(
                "no_model",
                "too_long",
                "out_of_scope",
                "checks_failed",
                "held_back",
                "deadline",
                "crashed",
                name="reason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("lease", sa.Uuid(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("draft_version", sa.Integer(), nullable=True),
        sa.Column("supersedes", sa.Uuid(), nullable=True),
        sa.Column("amends", sa.Uuid(), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_xid", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["amends"], ["draft_requests.id"], name=op.f("fk_draft_requests_amends")),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_draft_requests_institution")),
        sa.ForeignKeyConstraint(["supersedes"], ["draft_requests.id"], name=op.f("fk_draft_requests_supersedes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draft_requests")),
    )
    op.create_index("ix_draft_requests_accession", "draft_requests", ["institution", "accession"], unique=False)
    op.create_index("ix_draft_requests_changed", "draft_requests", ["institution", "changed_xid", "id"], unique=False)
    op.create_index(
        "ix_draft_requests_claim",
        "draft_requests",
        [sa.literal_column("is_stat DESC"), "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_draft_requests_leased",
        "draft_requests",
        ["leased_until"],
        unique=False,
        postgresql_where=sa.text("state = 'drafting'"),
    )
    op.create_index(
        "ix_draft_requests_open",
        "draft_requests",
        ["institution", "state", "due_at"],
        unique=False,
        postgresql_where=sa.text("state NOT IN ('signed', 'superseded', 'cancelled')"),
    )
    op.create_index(
        "uq_draft_requests_current",
        "draft_requests",
        ["institution", "accession", "findings_hash"],
        unique=True,
        postgresql_where=sa.text("state NOT IN ('superseded', 'cancelled')"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_version", sa.Text(collation="C"), nullable=False),
        sa.Column("dataset", sa.Text(collation="C"), nullable=True),
        sa.Column("scorer", sa.Text(collation="C"), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.id"], name=op.f("fk_evaluations_dataset")),
        sa.ForeignKeyConstraint(["model_version"], ["model_versions.id"], name=op.f("fk_evaluations_model_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_model_version"), "evaluations", ["model_version"], unique=False)
    op.create_table(
        "identities",
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("purpose", sa.Text(collation="C"), nullable=False),
        sa.Column("pseudonym", sa.Text(collation="C"), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_identities_institution")),
        sa.PrimaryKeyConstraint("institution", "purpose", "pseudonym", name=op.f("pk_identities")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("model_version", sa.Text(collation="C"), nullable=False),
        sa.Column("previous", sa.Text(collation="C"), nullable=True),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("gate", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("actor", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_version"], ["model_versions.id"], name=op.f("fk_promotions_model_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("source_id", sa.Text(collation="C"), nullable=False),
        sa.Column("accession", sa.Text(collation="C"), nullable=True),
        sa.Column("patient", sa.Text(collation="C"), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "preliminary",
                "final",
                "amended",
                "retracted",
                name="reportstatus",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("content_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("findings_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("language", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("modality", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("systems", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("exam_title", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("sex", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("age", sa.Integer(), nullable=True),
        sa.Column("patient_class", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("history", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("prior_impression", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("findings_raw", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("impression_raw", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("findings", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("impression", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("cleaning_version", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("author", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("author_grade", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("reviewer", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("reviewer_grade", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("examined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("split", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("excluded", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("ingested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_reports_institution")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
        sa.UniqueConstraint("institution", "source_id", name=op.f("uq_reports_institution_source_id")),
    )
    op.create_index("ix_reports_findings_hash", "reports", ["findings_hash"], unique=False)
    op.create_index("ix_reports_institution_accession", "reports", ["institution", "accession"], unique=False)
    op.create_index("ix_reports_patient", "reports", ["institution", "patient"], unique=False)
    op.create_table(
        "training_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("profile", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("dataset", sa.Text(collation="C"), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "done",
                "failed",
                "cancelled",
                name="runstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("error", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("model_version", sa.Text(collation="C"), nullable=True),
        sa.Column("requested_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("worker", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.id"], name=op.f("fk_training_runs_dataset")),
        sa.ForeignKeyConstraint(["model_version"], ["model_versions.id"], name=op.f("fk_training_runs_model_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("login", sa.Text(collation="C"), nullable=False),
        sa.Column("display_name", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("password_hash", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("role", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("grade", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("institution", sa.Text(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_users_institution")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("login", name=op.f("uq_users_login")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "running",
                "finished",
                "retried",
                "crashed",
                "discarded",
                name="attemptstate",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("model_version", sa.Text(collation="C"), nullable=True),
        sa.Column("error", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_attempts_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index("ix_attempts_request", "attempts", ["request_id"], unique=False)
    op.create_table(
        "callbacks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("url", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("request_state", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("state", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_callbacks_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
    )
    op.create_index(
        "ix_callbacks_due", "callbacks", ["next_at"], unique=False, postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_table(
        "report_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "preliminary",
                "final",
                "amended",
                "retracted",
                name="reportstatus",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("content_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("findings_raw", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("impression_raw", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("author", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("reviewer", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ingested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_report_versions_report_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_versions")),
        sa.UniqueConstraint("report_id", "content_hash", name=op.f("uq_report_versions_report_id_content_hash")),
    )
    op.create_table(
        "request_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("draft_version", sa.Integer(), nullable=True),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("actor", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_request_events_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request_events")),
    )
    op.create_index(op.f("ix_request_events_request_id"), "request_events", ["request_id"], unique=False)
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("secret_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("csrf", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_sessions_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_sessions")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_user_sessions_secret_hash")),
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("text", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("finish", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("new_tokens", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("issues", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("model_version", sa.Text(collation="C"), nullable=False),
        sa.Column("prompt_version", sa.Text(collation="C"), nullable=False),
        sa.Column("checks_version", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_generations_attempt_id")),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_generations_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint("attempt_id", "rung", name=op.f("uq_generations_attempt_id_rung")),
    )
    op.create_index(op.f("ix_generations_request_id"), "generations", ["request_id"], unique=False)
    op.create_table(
        "drafts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("role", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("visible", sa.Boolean(), nullable=False),
        sa.Column("impression", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("label", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("generation_id", sa.Uuid(), nullable=False),
        sa.Column("model_version", sa.Text(collation="C"), nullable=False),
        sa.Column("prompt_version", sa.Text(collation="C"), nullable=False),
        sa.Column("checks_version", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("NOT visible OR role = 'serving'", name=op.f("ck_drafts_visible_is_serving")),
        sa.ForeignKeyConstraint(["generation_id"], ["generations.id"], name=op.f("fk_drafts_generation_id")),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_drafts_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drafts")),
        sa.UniqueConstraint("request_id", "version", name=op.f("uq_drafts_request_id_version")),
    )
    op.create_index("uq_drafts_visible", "drafts", ["request_id"], unique=True, postgresql_where=sa.text("visible"))
    op.create_table(
        "issues",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("draft_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("severity", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("span_findings", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("span_impression", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("message", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("rule", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["draft_id"], ["drafts.id"], name=op.f("fk_issues_draft_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issues")),
    )
    op.create_index(op.f("ix_issues_draft_id"), "issues", ["draft_id"], unique=False)
    op.create_table(
        "sign_offs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("place", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("text_role", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("impression", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("draft_id", sa.Uuid(), nullable=True),
        sa.Column("report_id", sa.Uuid(), nullable=True),
        sa.Column("report_version", sa.Integer(), nullable=True),
        sa.Column("signer", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("signer_grade", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("exposure", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["draft_id"], ["drafts.id"], name=op.f("fk_sign_offs_draft_id")),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_sign_offs_report_id")),
        sa.ForeignKeyConstraint(["request_id"], ["draft_requests.id"], name=op.f("fk_sign_offs_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_offs")),
        sa.UniqueConstraint("request_id", "version", name=op.f("uq_sign_offs_request_id_version")),
    )
    op.create_table(
        "scores",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sign_off_id", sa.Uuid(), nullable=False),
        sa.Column("draft_id", sa.Uuid(), nullable=True),
        sa.Column("scorer", sa.Text(collation="C"), nullable=False),
        sa.Column("r1", sa.Float(), nullable=False),
        sa.Column("r2", sa.Float(), nullable=False),
        sa.Column("rl", sa.Float(), nullable=False),
        sa.Column("char_rl", sa.Float(), nullable=False),
        sa.Column("edit_distance", sa.Integer(), nullable=False),
        sa.Column("fact_f1", sa.Float(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["draft_id"], ["drafts.id"], name=op.f("fk_scores_draft_id")),
        sa.ForeignKeyConstraint(["sign_off_id"], ["sign_offs.id"], name=op.f("fk_scores_sign_off_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scores")),
        sa.UniqueConstraint("sign_off_id", "scorer", name=op.f("uq_scores_sign_off_id_scorer")),
    )
    op.execute(TRIGGERS)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER refuse_change BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    op.execute(ROLE)


def downgrade() -> None:
    op.drop_table("scores")
    op.drop_table("sign_offs")
    op.drop_index(op.f("ix_issues_draft_id"), table_name="issues")
    op.drop_table("issues")
    op.drop_index("uq_drafts_visible", table_name="drafts", postgresql_where=sa.text("visible"))
    op.drop_table("drafts")
    op.drop_index(op.f("ix_generations_request_id"), table_name="generations")
    op.drop_table("generations")
    op.drop_table("user_sessions")
    op.drop_index(op.f("ix_request_events_request_id"), table_name="request_events")
    op.drop_table("request_events")
    op.drop_table("report_versions")
    op.drop_index("ix_callbacks_due", table_name="callbacks", postgresql_where=sa.text("state = 'waiting'"))
    op.drop_table("callbacks")
    op.drop_index("ix_attempts_request", table_name="attempts")
    op.drop_table("attempts")
    op.drop_table("users")
    op.drop_table("training_runs")
    op.drop_index("ix_reports_patient", table_name="reports")
    op.drop_index("ix_reports_institution_accession", table_name="reports")
    op.drop_index("ix_reports_findings_hash", table_name="reports")
    op.drop_table("reports")
    op.drop_table("promotions")
    op.drop_table("identities")
    op.drop_index(op.f("ix_evaluations_model_version"), table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_index(
        "uq_draft_requests_current",
        table_name="draft_requests",
        postgresql_where=sa.text("state NOT IN ('superseded', 'cancelled')"),
    )
    op.drop_index(
        "ix_draft_requests_open",
        table_name="draft_requests",
        postgresql_where=sa.text("state NOT IN ('signed', 'superseded', 'cancelled')"),
    )
    op.drop_index(
        "ix_draft_requests_leased", table_name="draft_requests", postgresql_where=sa.text("state = 'drafting'")
    )
    op.drop_index("ix_draft_requests_claim", table_name="draft_requests", postgresql_where=sa.text("state = 'queued'"))
    op.drop_index("ix_draft_requests_changed", table_name="draft_requests")
    op.drop_index("ix_draft_requests_accession", table_name="draft_requests")
    op.drop_table("draft_requests")
    op.drop_table("cursors")
    op.drop_table("api_keys")
    op.drop_table("active_models")
    op.drop_index("ix_quarantine_open", table_name="quarantine", postgresql_where=sa.text("resolved_at IS NULL"))
    op.drop_table("quarantine")
    op.drop_table("processes")
    op.drop_table("model_versions")
    op.drop_table("institutions")
    op.drop_table("datasets")
    op.drop_index("ix_audit_events_unsealed", table_name="audit_events", postgresql_where=sa.text("seq IS NULL"))
    op.drop_table("audit_events")
    op.execute("DROP FUNCTION stamp_change")
    op.execute("DROP FUNCTION refuse_change")
    op.execute("DROP FUNCTION refuse_sealed")
    # The role stays: roles belong to the whole server, and another database may use it.
