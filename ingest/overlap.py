"""Which rows of the overlap are new or have changed: told by the source's own hash of each row, so that a poll with nothing new reads no text.

The source hashes (`row_hash`), we remember the hash with the report once its row has been taken. A mapping that has changed makes all of them
unknown, since the same row may mean something else now. What lies in quarantine has no report to be remembered with and is read again, but by a
process that stays: that one knows the overlap which its last poll has dealt with, and asks nothing while it is the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from core.db import transaction
from core.identity import Keyring
from ingest import load
from ingest.mapping import Mapping as InstitutionMapping
from ingest.rows import Rows


def row_hash(dialect: str, columns: Iterable[str]) -> sa.ColumnElement[str] | None:
    """The MD5 of every column of a row of `source_rows` in hex, where the database makes one in a way that a live server has proved. No secret: a
    fingerprint against change."""
    if dialect == "postgresql":
        return sa.literal_column("md5(CAST(source_rows AS text))")
    if dialect in ("mysql", "mariadb"):
        cells = ", ".join(f"coalesce(hex(CAST(source_rows.{word} AS BINARY)), '-')" for word in columns)
        return sa.literal_column(f"md5(concat_ws('|', {cells}))")
    return None


_dealt_with: dict[tuple[str, str, str], frozenset[bytes]] = {}
"""Pages of the overlap that this process's last complete poll of an institution saw, by database of ours, institution and mapping."""


class Overlap:
    """What we remember of one institution's rows, for the length of a poll."""

    def __init__(self, engine: sa.Engine, of: InstitutionMapping, keyring: Keyring) -> None:
        self._engine, self._of, self._rows = engine, of, Rows(of, keyring)
        self._met: dict[str, str] = {}
        self._here = (str(engine.url), of.code, of.version)
        self._pages: set[bytes] = set()

    def unknown(self, rows: Iterable[tuple[Any, str]]) -> list[Any]:
        """Of rows by key and hash, the keys of those that have to be read."""
        rows = list(rows)
        page = hashlib.sha256(repr(sorted(f"{key} {digest}" for key, digest in rows)).encode()).digest()
        self._pages.add(page)
        if page in _dealt_with.get(self._here, ()):
            return []
        hashes: dict[Any, str] = {}
        for key, digest in rows:
            # of two rows of one key no hash stands for both
            hashes[key] = f"{self._of.version}{digest}" if key not in hashes else ""
        names = {key: self._rows.source_id(key) for key in hashes}
        with transaction(self._engine) as session:
            held = load.source_hashes(session, self._of.code, [name for name in names.values() if name is not None])
        unknown = [key for key, digest in hashes.items() if held.get(names[key] or "") != digest]
        self._met |= {name: hashes[key] for key in unknown if (name := names[key]) is not None and hashes[key]}
        return unknown

    def met(self, source_ids: Iterable[str]) -> Mapping[str, str]:
        """The hashes to remember of rows that `unknown` asked for and that have been taken now."""
        return {source_id: self._met[source_id] for source_id in source_ids if source_id in self._met}

    def dealt_with(self) -> None:
        """The poll is complete: everything that `unknown` asked for is stored or in quarantine."""
        _dealt_with[self._here] = frozenset(self._pages)
