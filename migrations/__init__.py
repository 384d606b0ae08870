"""Alembic's revisions of the schema, and how they are run."""
