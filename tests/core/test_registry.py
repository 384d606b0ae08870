"""Model versions are what their manifests say, or they are not registered."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import registry
from core.errors import Broken, Conflict, NotFound
from core.tables import Promotion


def version(folder: Path, name: str = "v1", **changes: Any) -> Path:
    """A finished adapter directory."""
    directory = folder / name
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(name.encode() * 10)
    manifest = {
        "id": name,
        "base": {"model": "demo", "digest": "d"},
        "adapter": {"r": 8},
        "weights": "nf4+adapter",
        "prompt": {"template": "brief", "version": "brief-0"},
        "training": {},
        "scope": [],
        "sandbox_only": False,
        "files": {"adapter_model.safetensors": hashlib.sha256(name.encode() * 10).hexdigest()},
        "created_at": "2026-01-01T00:00:00Z",
        **changes,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def test_a_version_is_registered_once(session: Session, tmp_path: Path) -> None:
    directory = version(tmp_path)
    assert registry.register(session, directory).id == registry.register(session, directory).id == "v1"


def test_other_content_under_a_taken_name_is_refused(session: Session, tmp_path: Path) -> None:
    registry.register(session, version(tmp_path / "a"))
    with pytest.raises(Conflict):
        registry.register(session, version(tmp_path / "b", weights="bf16-merged"))


def test_changed_missing_foreign_and_unnamed_files_are_refused(session: Session, tmp_path: Path) -> None:
    changed, cut, extra = (version(tmp_path / name) for name in ("changed", "cut", "extra"))
    (changed / "adapter_model.safetensors").write_bytes(b"x")
    (cut / "adapter_model.safetensors").unlink()
    (extra / "more.bin").write_bytes(b"pickle")
    outside = version(tmp_path / "outside", files={"../v1/adapter_model.safetensors": "0"})
    unfinished = version(tmp_path / "unfinished")
    (unfinished / "manifest.json").unlink()
    for directory in (changed, cut, extra, outside, unfinished):
        with pytest.raises(Broken):
            registry.register(session, directory)


def test_promotion_moves_the_pointer_and_rollback_moves_it_back(session: Session, tmp_path: Path) -> None:
    for name in ("v1", "v2", "v3"):
        registry.register(session, version(tmp_path, name))
        registry.promote(session, name, "user:a")
    assert registry.rollback(session, "user:a") == ("v3", "v2")
    assert registry.rollback(session, "user:a") == ("v2", "v1")
    with pytest.raises(Conflict):
        registry.rollback(session, "user:a")
    found = registry.active(session, "north")
    assert found is not None
    assert (found.id, found.template) == ("v1", "brief")


def test_what_served_before_does_not_depend_on_the_clock(session: Session, tmp_path: Path) -> None:
    for name in ("v1", "v2", "v3"):
        registry.register(session, version(tmp_path, name))
    for name in ("v1", "v2", "v3"):
        registry.promote(session, name, "user:a")
    session.execute(sa.text("ALTER TABLE promotions DISABLE TRIGGER USER"))  # append-only
    session.execute(sa.update(Promotion).values(at=Promotion.at + timedelta(hours=1)))  # type: ignore[arg-type, operator]
    registry.promote(session, "v2", "user:a")  # the clock has been set back by an hour, and v2 served before
    assert registry.rollback(session, "user:a") == ("v2", "v3")


def test_an_institution_of_its_own_has_precedence_over_everybody(session: Session, tmp_path: Path) -> None:
    for name, institution in (("v1", "*"), ("v2", "north")):
        registry.register(session, version(tmp_path, name))
        registry.promote(session, name, "user:a", institution)
    served = {code: registry.active(session, code) for code in ("north", "south")}
    assert {code: found and found.id for code, found in served.items()} == {"north": "v2", "south": "v1"}


def test_an_unknown_version_is_refused_with_a_hint(session: Session) -> None:
    with pytest.raises(NotFound, match="valuer models list"):
        registry.promote(session, "none", "user:a")
