"""Reports that were opened again after signing, the ledgers of reconciliation and backfill, and since when a source fails.

Additive: processes of the release before this one go on. They never meet the new status before an institution file asks for it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KEY = sa.Text(collation="C")
BEFORE = ("preliminary", "final", "amended", "retracted")
NOW = ("preliminary", "unsigned", "final", "amended", "retracted")


def upgrade() -> None:
    _allow(NOW)
    op.create_table(
        "withdrawals",
        sa.Column("sign_off_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(*NOW, name="reportstatus", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["sign_off_id"], ["sign_offs.id"], name=op.f("fk_withdrawals_sign_off_id")),
        sa.PrimaryKeyConstraint("sign_off_id", name=op.f("pk_withdrawals")),
    )
    op.execute("GRANT SELECT ON withdrawals TO valuer_worker")
    op.add_column("cursors", sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cursors", sa.Column("failure_message", sqlmodel.sql.sqltypes.AutoString(), nullable=True))
    op.add_column("cursors", sa.Column("next_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("quarantine", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "reconciled_days",
        sa.Column("institution", KEY, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("source_rows", sa.Integer(), nullable=False),
        sa.Column("source_hash", KEY, nullable=False),
        sa.Column("fetched", sa.Integer(), nullable=False),
        sa.Column("absent", sa.Integer(), nullable=False),
        sa.Column("compared_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_reconciled_days_institution")),
        sa.PrimaryKeyConstraint("institution", "day", name=op.f("pk_reconciled_days")),
    )
    op.create_table(
        "absences",
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("institution", KEY, nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("excluded_before", sqlmodel.sql.sqltypes.AutoString(), nullable=True),
        sa.Column("first_missed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_missed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_absences_report_id")),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_absences_institution")),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_absences")),
    )
    op.create_index(op.f("ix_absences_institution"), "absences", ["institution"])
    op.create_table(
        "backfill_days",
        sa.Column("institution", KEY, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("rows_read", sa.Integer(), nullable=False),
        sa.Column("stored", sa.Integer(), nullable=False),
        sa.Column("quarantined", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["institution"], ["institutions.code"], name=op.f("fk_backfill_days_institution")),
        sa.PrimaryKeyConstraint("institution", "day", name=op.f("pk_backfill_days")),
    )
    op.create_index(
        "ix_backfill_days_waiting",
        "backfill_days",
        ["institution", "day"],
        postgresql_where=sa.text("done_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("backfill_days")
    op.drop_table("absences")
    op.drop_table("reconciled_days")
    op.drop_column("quarantine", "attempts")
    op.drop_column("cursors", "next_at")
    op.drop_column("cursors", "failure_message")
    op.drop_column("cursors", "failing_since")
    op.drop_table("withdrawals")
    for table in ("reports", "report_versions"):
        op.execute(f"UPDATE {table} SET status = 'preliminary' WHERE status = 'unsigned'")  # noqa: S608 - constants
    _allow(BEFORE)


def _allow(values: Sequence[str]) -> None:
    """Rows are not looked at again: the new list holds all of the old one, and a downgrade has mended them."""
    listed = ", ".join(f"'{value}'" for value in values)
    for table in ("reports", "report_versions"):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_reportstatus")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_reportstatus CHECK (status IN ({listed})) NOT VALID")
