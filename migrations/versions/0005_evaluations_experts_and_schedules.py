"""Evaluations case by case, regression cases, blinded reading by experts, schedules of training.

Additive: processes of the release before this one go on.
"""

from collections.abc import Sequence

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "expert_studies",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("title", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("writers", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expert_studies")),
    )
    op.create_table(
        "regression_cases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("case", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("forbids", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("fact_floor", sa.Float(), nullable=False),
        sa.Column("why", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("approved_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_regression_cases")),
    )
    op.create_table(
        "expert_texts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study", sa.Text(collation="C"), nullable=False),
        sa.Column("case_id", sa.Text(collation="C"), nullable=False),
        sa.Column("writer", sa.Text(collation="C"), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("systems", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("in_house", sa.Boolean(), nullable=False),
        sa.Column("modality", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("exam_title", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("findings", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("impression", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["expert_studies.id"], name=op.f("fk_expert_texts_study")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expert_texts")),
        sa.UniqueConstraint("study", "case_id", "writer", name=op.f("uq_expert_texts_study_case_id_writer")),
    )
    op.create_table(
        "expert_assignments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study", sa.Text(collation="C"), nullable=False),
        sa.Column("text_id", sa.Uuid(), nullable=False),
        sa.Column("reader", sa.Text(collation="C"), nullable=False),
        sa.Column("grade", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["expert_studies.id"], name=op.f("fk_expert_assignments_study")),
        sa.ForeignKeyConstraint(["text_id"], ["expert_texts.id"], name=op.f("fk_expert_assignments_text_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expert_assignments")),
        sa.UniqueConstraint("study", "reader", "position", name=op.f("uq_expert_assignments_study_reader_position")),
        sa.UniqueConstraint("study", "reader", "text_id", name=op.f("uq_expert_assignments_study_reader_text_id")),
    )
    op.create_table(
        "judged_cases",
        sa.Column("evaluation_id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Text(collation="C"), nullable=False),
        sa.Column("institution", sa.Text(collation="C"), nullable=False),
        sa.Column("modality", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("systems", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("sex", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("age_band", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("draft", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("outcome", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("scores", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("issues", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("degenerate", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("finish", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("new_tokens", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_judged_cases_evaluation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "case_id", name=op.f("pk_judged_cases")),
    )
    op.create_table(
        "training_schedules",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("profile", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cron", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("after_reports", sa.Integer(), nullable=True),
        sa.Column("on_drift", sa.Boolean(), nullable=False),
        sa.Column("created_by", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_run", sa.Uuid(), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["last_run"], ["training_runs.id"], name=op.f("fk_training_schedules_last_run")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_training_schedules")),
    )
    op.create_table(
        "expert_ratings",
        sa.Column("assignment_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.Text(collation="C"), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.Column("excerpts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("explanations", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("rated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["expert_assignments.id"], name=op.f("fk_expert_ratings_assignment_id")
        ),
        sa.PrimaryKeyConstraint("assignment_id", "metric", name=op.f("pk_expert_ratings")),
    )
    op.add_column("evaluations", sa.Column("subject", sa.Text(collation="C"), nullable=True))
    op.add_column("evaluations", sa.Column("artefact", sa.Text(collation="C"), nullable=True))
    op.add_column("evaluations", sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("evaluations", "model_version", existing_type=sa.TEXT(collation="C"), nullable=True)
    op.create_index("ix_evaluations_subject", "evaluations", ["subject", "dataset"], unique=False)
    op.add_column("model_versions", sa.Column("collected_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_table("judged_cases")
    op.drop_column("model_versions", "collected_at")
    op.drop_index("ix_evaluations_subject", table_name="evaluations")
    op.execute("DELETE FROM evaluations WHERE model_version IS NULL")
    op.alter_column("evaluations", "model_version", existing_type=sa.Text(collation="C"), nullable=False)
    op.drop_column("evaluations", "finished_at")
    op.drop_column("evaluations", "artefact")
    op.drop_column("evaluations", "subject")
    op.drop_table("expert_ratings")
    op.drop_table("training_schedules")
    op.drop_table("expert_assignments")
    op.drop_table("expert_texts")
    op.drop_table("regression_cases")
    op.drop_table("expert_studies")
