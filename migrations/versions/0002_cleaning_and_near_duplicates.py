"""What cleaning took out of a report, and what the search for near duplicates knows of it.

Additive: processes of the release before this one go on, and leave both empty.
"""

from collections.abc import Sequence

import sqlalchemy as sa
import sqlmodel.sql.sqltypes
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("reports", sa.Column("removed", postgresql.ARRAY(sa.Text()), nullable=True))
    op.create_table(
        "findings_sketches",
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("findings_hash", sa.Text(collation="C"), nullable=False),
        sa.Column("side", sqlmodel.sql.sqltypes.AutoString(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=False),
        sa.Column("keeper", sa.Uuid(), nullable=True),
        sa.Column("examined_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], name=op.f("fk_findings_sketches_report_id")),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_findings_sketches")),
    )
    op.create_index(
        "ix_findings_sketches_keeper",
        "findings_sketches",
        ["keeper"],
        postgresql_where=sa.text("keeper IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("findings_sketches")
    op.drop_column("reports", "removed")
