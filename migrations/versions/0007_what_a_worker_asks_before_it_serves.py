"""The drafting worker reads what served before, and what a version was evaluated as.

Additive: processes of the release before this one go on.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_WHERE_THE_ROLE_IS = """
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'valuer_worker') THEN
    {deed};
  END IF;
END $$;
"""


def upgrade() -> None:
    op.execute(_WHERE_THE_ROLE_IS.format(deed="GRANT SELECT ON promotions, evaluations TO valuer_worker"))


def downgrade() -> None:
    op.execute(_WHERE_THE_ROLE_IS.format(deed="REVOKE SELECT ON promotions, evaluations FROM valuer_worker"))
