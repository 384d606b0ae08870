"""Garbage collection: files of model versions and training runs that nothing refers to any more. Rows stay; drafts name the version that made them.

Kept are what serves, what served lately (a rollback goes there), what made a draft (somebody may ask how), the newest versions (candidates), what a
waiting or running training run names, and everything that does not lie in the folder of models. What a process that was killed left half removed or
never registered goes too.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import audit, registry
from core.db import database_now
from core.tables import ActiveModel, Draft, ModelVersion, Promotion, TrainingRun
from training.runs import ENDED

SERVED, NEWEST = 3, 3
"""How many versions that served an institution last, and how many of the newest, are kept."""


@dataclass(frozen=True, slots=True)
class Rubbish:
    """What may go: versions by id with their directories, and folders that ended runs and an interrupted collection left."""

    versions: dict[str, tuple[Path, ...]]
    folders: tuple[Path, ...]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for folder in self._all() for file in folder.rglob("*") if file.is_file())

    def remove(self) -> None:
        """Removes the files."""
        for folder in self._all():
            shutil.rmtree(folder, ignore_errors=True)

    def _all(self) -> tuple[Path, ...]:
        return (*(folder for folders in self.versions.values() for folder in folders), *self.folders)


def rubbish(session: Session, home: Path) -> Rubbish:
    """What nothing refers to."""
    models = home / "models"
    # before the versions, since a run ends in the transaction that registers its version
    ended = {str(run) for run in session.exec(select(TrainingRun.id).where(col(TrainingRun.state).in_(sorted(ENDED))))}
    rows = [row for row in session.exec(select(ModelVersion)) if Path(row.path).parent == models]
    kept = _referenced(session)
    versions = {row.id: _directories(row, home) for row in rows if row.collected_at is None and row.id not in kept}
    halves = [folder for row in rows if row.collected_at is not None for folder in _directories(row, home)]
    known = {Path(row.path) for row in rows}
    unregistered = [each for each in sorted(models.glob("*")) if each not in known and _made_by(each) in ended]
    worked_in = [each for each in sorted((home / "training").glob("*")) if each.name in ended]
    return Rubbish(versions, (*worked_in, *unregistered, *halves))


def _directories(row: ModelVersion, home: Path) -> tuple[Path, ...]:
    """The version's own, and that of the model merged from it."""
    return tuple(each for each in (Path(row.path), home / "merged" / row.id) if each.is_dir())


def _made_by(folder: Path) -> str | None:
    """The run that published this directory, by its manifest; None where it says none."""
    try:
        run = json.loads((folder / registry.MANIFEST).read_text("utf-8"))["training"]["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(run)


def collect(session: Session, found: Rubbish, actor: str) -> Rubbish:
    """Marks the versions as gone and returns what to `remove` once this is committed: a version that began to serve meanwhile stays."""
    # no pointer moves to one of them until the commit, and nobody else collects
    session.execute(sa.text("LOCK TABLE active_models IN SHARE ROW EXCLUSIVE MODE"))
    kept = _referenced(session)
    gone = {version: folders for version, folders in found.versions.items() if version not in kept}
    for version in gone:
        row = session.get_one(ModelVersion, version, populate_existing=True)
        if row.collected_at is None:
            row.collected_at = database_now(session)
            session.add(row)
            audit.record(session, actor, "model.collected", f"model:{version}")
    return Rubbish(gone, found.folders)


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
