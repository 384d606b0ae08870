"""Model versions: register, promote, roll back, and which one serves an institution.

A version is an adapter directory whose `manifest.json` was written last and names the hash of every other file; it is never changed.
Promotion moves a pointer in one transaction. Whether a version *should* be promoted is training's gate (`training.promotion` asks it); this
module keeps the record.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col, select

from core import audit
from core.errors import Broken, Conflict, NotFound
from core.tables import ActiveModel, ModelVersion, Promotion

EVERYONE = "*"
MANIFEST = "manifest.json"
_REQUIRED = ("id", "base", "adapter", "weights", "prompt", "training", "scope", "sandbox_only", "files", "created_at")


@dataclass(frozen=True, slots=True)
class Active:
    """The version that serves an institution, as a worker needs it."""

    id: str
    base_digest: str
    path: Path
    digest: str
    template: str
    sandbox_only: bool
    manifest: dict[str, Any] = field(repr=False, hash=False, compare=False)


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of an adapter directory, its files verified against their hashes.

    Raises:
        Broken: the manifest is missing or incomplete, or a file is missing, changed or not named by it.
    """
    try:
        manifest = json.loads(_manifest(directory))
    except ValueError:
        raise Broken(f"The {MANIFEST} of {directory.name} cannot be read.") from None
    if not isinstance(manifest, dict):
        raise Broken(f"The {MANIFEST} of {directory.name} cannot be read.")
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing:
        raise Broken(f"The {MANIFEST} of {directory.name} lacks {', '.join(missing)}.")
    if not isinstance(manifest["files"], dict):
        raise Broken(f"The {MANIFEST} of {directory.name} lists no files.")
    for name, expected in manifest["files"].items():
        if Path(name).name != name:
            raise Broken(f"The {MANIFEST} of {directory.name} names a file outside its directory.")
        if (directory / name).is_symlink():
            raise Broken(f"{directory.name}/{name} is a link: its content could change after it was verified.")
        try:
            with (directory / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            raise Broken(f"{directory.name} lacks its file {name}.") from None
        if found != expected:
            raise Broken(f"{directory.name}/{name} is not what its manifest says: it was changed or cut.")
    unnamed = {p.name for p in directory.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pkl")} - set(
        manifest["files"]
    )
    if unnamed:
        raise Broken(f"{directory.name} holds weights that its manifest does not name: {', '.join(sorted(unnamed))}.")
    return manifest


def require_registered(version: Active) -> None:
    """Raises Broken unless the manifest on this machine's disk is the one that was registered; its files are the engine's to verify."""
    if hashlib.sha256(_manifest(version.path)).hexdigest() != version.digest:
        raise Broken(f"The {MANIFEST} of {version.id} is not the one that was registered.")


def require_usable(row: ModelVersion) -> None:
    """Raises Conflict when the version's files were removed, Broken when they are not the ones that were registered."""
    if row.collected_at is not None:
        raise Conflict(f"The files of {row.id} were removed; it cannot serve any more.", code="collected")
    read_manifest(Path(row.path))
    require_registered(_active(row))


def _manifest(directory: Path) -> bytes:
    try:
        return (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise Broken(f"{directory.name} has no {MANIFEST}: it is not a finished model version.") from None
    except OSError:
        raise Broken(f"The {MANIFEST} of {directory.name} cannot be read.") from None


def register(session: Session, directory: Path) -> ModelVersion:
    """Records a finished adapter directory; registering the same one again returns the row that is there.

    Raises:
        Broken: the directory does not match its manifest.
        Conflict: the id is taken by other content.
    """
    manifest = read_manifest(directory)
    digest = hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    known = session.get(ModelVersion, manifest["id"])
    if known is not None:
        if known.digest != digest:
            raise Conflict(
                f"A model version called {manifest['id']} with other content is registered already.",
                code="version_taken",
            )
        if known.path != str(directory):
            known.path = str(directory)
            session.add(known)
        return known
    row = ModelVersion(
        id=manifest["id"],
        base=manifest["base"]["model"],
        base_digest=manifest["base"]["digest"],
        digest=digest,
        path=str(directory),
        manifest=manifest,
    )
    session.add(row)
    session.flush()
    audit.record(session, "process:registry", "model.registered", f"model:{row.id}", digest=digest)
    return row


def get(session: Session, version: str) -> ModelVersion:
    """The version. Raises NotFound."""
    row = session.get(ModelVersion, version)
    if row is None:
        raise NotFound(
            f"There is no model version {version}; `valuer models list` shows those that are.", code="unknown_model"
        )
    return row


def hold_still(session: Session, institution: str) -> None:
    """Until the transaction ends, nobody else moves the pointer of `institution`, and no version is removed (training.collection)."""
    session.execute(sa.text("LOCK TABLE active_models IN ROW EXCLUSIVE MODE"))
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"promote/{institution}", 0))))


def promote(
    session: Session,
    version: str,
    actor: str,
    institution: str = EVERYONE,
    *,
    gate: dict[str, Any] | None = None,
    reason: str | None = None,
) -> str | None:
    """Makes `version` serve `institution` (`*`: everybody without their own); returns the version that served before."""
    row = get(session, version)
    hold_still(session, institution)
    before = session.get(ActiveModel, institution, populate_existing=True)
    previous = None if before is None else before.model_version
    values = {"institution": institution, "model_version": row.id, "moved_by": actor}
    statement = insert(ActiveModel).values(**values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["institution"], set_={"model_version": row.id, "moved_by": actor, "moved_at": sa.func.now()}
        )
    )
    session.add(
        Promotion(
            institution=institution,
            model_version=row.id,
            previous=previous,
            kind="promoted",
            gate=gate or {},
            reason=reason,
            actor=actor,
            at=_next_moment(session, institution),
        )
    )
    audit.record(
        session,
        actor,
        "model.promoted",
        f"model:{row.id}",
        institution=institution,
        previous=previous,
        reason=reason,
        forced=bool((gate or {}).get("forced")),
    )
    return previous


def held(
    session: Session, version: str, actor: str, institution: str, *, gate: dict[str, Any], reason: str | None = None
) -> None:
    """Records that the gate held `version`; the pointer stays."""
    active = session.get(ActiveModel, institution)
    session.add(
        Promotion(
            institution=institution,
            model_version=version,
            previous=None if active is None else active.model_version,
            kind="held",
            gate=gate,
            reason=reason,
            actor=actor,
        )
    )
    audit.record(session, actor, "model.held", f"model:{version}", institution=institution)


def rollback(
    session: Session, actor: str, institution: str = EVERYONE, *, reason: str | None = None
) -> tuple[str, str]:
    """Moves the pointer back to what served before the present version; returns (from, to).

    Raises:
        Conflict: nothing served before, or its files are not there any more or not what was registered.
    """
    hold_still(session, institution)
    active = session.get(ActiveModel, institution, populate_existing=True)
    target = None if active is None else _before(session, institution, active.model_version)
    if active is None or target is None:
        raise Conflict("There is no earlier version to go back to.", code="nothing_before")
    try:
        require_usable(session.get_one(ModelVersion, target, populate_existing=True))
    except Broken as error:
        raise Conflict(
            f"{target} cannot serve again: {error.message} Promote another version.", code="unusable"
        ) from None
    current = active.model_version
    active.model_version, active.moved_by = target, actor
    active.moved_at = session.execute(sa.select(sa.func.now())).scalar_one()
    session.add(active)
    session.add(
        Promotion(
            institution=institution,
            model_version=target,
            previous=current,
            kind="rolled_back",
            reason=reason,
            actor=actor,
            at=_next_moment(session, institution),
        )
    )
    audit.record(
        session, actor, "model.rolled_back", f"model:{target}", institution=institution, previous=current, reason=reason
    )
    return current, target


def _next_moment(session: Session, institution: str) -> datetime:
    """Now, and after every earlier move of this pointer, which `hold_still` holds: a clock that was set back, or a transaction that began
    first and moved last, must not change what served before."""
    last = sa.select(sa.func.max(Promotion.at)).where(col(Promotion.institution) == institution).scalar_subquery()
    after = sa.func.greatest(sa.func.clock_timestamp(), last + timedelta(microseconds=1))
    moment: datetime = session.execute(sa.select(after)).scalar_one()
    return moment


def _active(row: ModelVersion) -> Active:
    return Active(
        row.id,
        row.base_digest,
        Path(row.path),
        row.digest,
        row.manifest["prompt"]["template"],
        bool(row.manifest["sandbox_only"]),
        row.manifest,
    )


def pointers(session: Session) -> dict[str, Active]:
    """Every pointer: institution code or `*`, and the version that serves it."""
    query = select(ActiveModel.institution, ModelVersion).join(
        ModelVersion, col(ModelVersion.id) == col(ActiveModel.model_version)
    )
    return {institution: _active(row) for institution, row in session.exec(query)}


def succession(session: Session, pointers: Mapping[str, Active], institution: str) -> Iterator[Active]:
    """The versions for `institution`, best first: the one that its pointer names and those that served before it, then everybody's likewise."""
    for pointer in (institution, EVERYONE):
        version, seen = pointers.get(pointer), set[str]()
        while version is not None and version.id not in seen:
            seen.add(version.id)
            yield version
            earlier = _before(session, pointer, version.id)
            row = None if earlier is None else session.get(ModelVersion, earlier)
            version = None if row is None or row.collected_at is not None else _active(row)


def _before(session: Session, institution: str, version: str) -> str | None:
    """What served `institution` before it was last given `version`."""
    query = select(Promotion.previous).where(
        Promotion.institution == institution, Promotion.kind == "promoted", Promotion.model_version == version
    )
    return session.exec(query.order_by(col(Promotion.at).desc())).first()


def active(session: Session, institution: str) -> Active | None:
    """The version that serves `institution`: its own, else everybody's, else none."""
    found = pointers(session)
    return found.get(institution) or found.get(EVERYONE)
