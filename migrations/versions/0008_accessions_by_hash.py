"""A lighter index for the accessions of reports: they are only ever looked up one by one, and a hash of one is smaller and quicker to insert than the
pair of institution and accession in a B-tree. Findings keep theirs: many reports have the same ones, which a hash index bears badly.

Changes no data: processes of the release before this one go on.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_reports_accession", "reports", ["accession"], unique=False, postgresql_using="hash")
    op.drop_index("ix_reports_institution_accession", table_name="reports")


def downgrade() -> None:
    op.create_index("ix_reports_institution_accession", "reports", ["institution", "accession"], unique=False)
    op.drop_index("ix_reports_accession", table_name="reports")
