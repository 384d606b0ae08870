"""Garbage collection: files of model versions and training runs that nothing refers to any more. Rows stay; drafts name the version that made them.

Kept are what serves, what served lately (a rollback goes there), what made a draft (somebody may ask how), the newest versions (candidates), what a
waiting or running training run names, and everything that does not lie in the folder of models.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit
from core.db import database_now
from core.tables import ActiveModel, Draft, ModelVersion, Promotion, TrainingRun
from training.runs import ENDED

SERVED, NEWEST = 3, 3
"""How many versions that served an institution last, and how many of the newest, are kept."""


@dataclass(frozen=True, slots=True)
class Rubbish:
    """What may go: versions by id with their directory, and folders that ended runs left."""

    versions: dict[str, Path]
    folders: tuple[Path, ...]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(
            file.stat().st_size
            for folder in (*self.versions.values(), *self.folders)
            for file in folder.rglob("*")
            if file.is_file()
        )


def rubbish(session: Session, home: Path) -> Rubbish:
    """What nothing refers to."""
    models = home / "models"
    kept = _referenced(session)
    rows = session.exec(select(ModelVersion).where(col(ModelVersion.collected_at).is_(None)))
    versions = {row.id: Path(row.path) for row in rows if row.id not in kept and Path(row.path).parent == models}
    folders = []
    for folder in sorted((home / "training").glob("*")):
        try:
            run = session.get(TrainingRun, UUID(folder.name))
        except ValueError:
            continue  # not a run's
        if run is not None and run.state in ENDED:
            folders.append(folder)
    return Rubbish(versions, tuple(folders))


def collect(session: Session, found: Rubbish, actor: str) -> Rubbish:
    """Marks the versions as gone and returns what to `remove` once this is committed: a version that began to serve meanwhile stays."""
    session.execute(
        sa.text("LOCK TABLE active_models IN SHARE MODE")
    )  # no pointer moves to one of them until the commit
    kept = _referenced(session)
    gone = {version: folder for version, folder in found.versions.items() if version not in kept}
    for version in gone:
        row = session.get_one(ModelVersion, version)
        row.collected_at = database_now(session)
        session.add(row)
        audit.record(session, actor, "model.collected", f"model:{version}")
    return Rubbish(gone, found.folders)


def remove(found: Rubbish) -> None:
    """Removes the files."""
    for folder in (*found.versions.values(), *found.folders):
        shutil.rmtree(folder, ignore_errors=True)


def _referenced(session: Session) -> set[str]:
    kept = set(session.exec(select(ActiveModel.model_version)))
    kept |= set(session.exec(select(Draft.model_version).distinct()))
    newest = select(ModelVersion.id).where(col(ModelVersion.collected_at).is_(None))
    kept |= set(session.exec(newest.order_by(col(ModelVersion.created_at).desc()).limit(NEWEST)))
    place = sa.func.row_number().over(partition_by=col(Promotion.institution), order_by=col(Promotion.at).desc())
    moves = (
        sa.select(col(Promotion.model_version), col(Promotion.previous), place.label("place"))
        .where(col(Promotion.kind) != "held")
        .subquery()
    )
    for version, previous in session.execute(
        sa.select(moves.c.model_version, moves.c.previous).where(moves.c.place <= SERVED)
    ):
        kept |= {version, previous} - {None}
    for run in session.exec(select(TrainingRun).where(col(TrainingRun.state).not_in(sorted(ENDED)))):
        kept |= {str(value) for value in run.options.values() if isinstance(value, str)}
    return kept
