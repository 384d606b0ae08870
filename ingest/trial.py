"""What would become of a source's rows under a mapping: read by the real source, taken and cleaned by the real rules, counted and forgotten.

Stores nothing and needs no database of ours; pseudonyms are made with a key that lives as long as the trial.
"""

import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from core.identity import Keyring
from ingest import cleaning
from ingest.files import FileSource
from ingest.mapping import FINAL, Mapping
from ingest.origin import FileConfig
from ingest.rows import Incoming, Rows
from ingest.sources import Source
from ingest.sql import SqlSource

PREVIEW = 20
FIRST_TRAINING = 200
"""Different reports of a body system and modality in the train part below which a first training has too little of it. Our own floor, not a measured one."""
TRIAL_S = 300.0
"""Seconds that one statement of a trial may take."""
MASK = "○○"


@dataclass
class Trial:
    """Counts of a trial. `read` = `accepted` + the rejected; `excluded` are accepted rows that would never train, by reason; `same_key` rows have the key
    of an earlier one, so they would be its versions; `training` are the different reports of the train part per (system, modality)."""

    read: int = 0
    accepted: int = 0
    same_key: int = 0
    complete: bool = True
    rejected: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    training: Counter[tuple[str, str]] = field(default_factory=Counter)
    preview: list[dict[str, str]] = field(default_factory=list)
    sheets: list[dict[str, Any]] = field(default_factory=list)

    def missing(self) -> list[dict[str, Any]]:
        """Per body system and modality that occur, how many reports there are for a first training and how many are missing."""
        return [
            {"system": system, "modality": modality, "have": have, "missing": max(0, FIRST_TRAINING - have)}
            for (system, modality), have in sorted(self.training.items())
        ]


def run(of: Mapping, limit: int, told: Callable[[int], None] = lambda rows: None) -> Trial:
    """Tries the first `limit` rows of the source; `told` hears how many have been read.

    Raises:
        Broken: the source does not fit the mapping at all. sqlalchemy.exc.SQLAlchemyError: its database refuses.
    """
    source: Source = FileSource(of) if isinstance(of.source, FileConfig) else SqlSource(of, deadline_s=TRIAL_S)
    rows = Rows(of, Keyring(secrets.token_bytes(32)))
    found = Trial()
    seen: set[str] = set()
    keys: set[str] = set()
    with closing(source), closing(source.batches({}, _settled(source, of), {})) as batches:
        for batch in batches:
            taken, rejects = rows.take(batch)
            found.read += len(taken) + len(rejects)
            found.accepted += len(taken)
            for reject in rejects:
                found.rejected[str(reject.reason)] += 1
                if reject.reason == "bad_sheet":
                    found.sheets.append(reject.context)
            keys.update(row.source_id for row in taken)
            found.same_key = found.accepted - len(keys)
            for row, clean in zip(taken, cleaning.cleaned_batch(taken, cleaning.cleaning_of(of)), strict=True):
                _count(found, row, clean, seen)
            told(found.read)
            if found.read >= limit:
                found.complete = False
                break
    return found


def _settled(source: Source, of: Mapping) -> datetime:
    """A moment at which even the newest row or file is old enough to be read."""
    return source.clock() + timedelta(seconds=of.source.settle_s + 1)


def _count(found: Trial, row: Incoming, clean: cleaning.Cleaned, seen: set[str]) -> None:
    if len(found.preview) < PREVIEW:
        found.preview.append(_shown(row, clean))
    if row.status not in FINAL:
        found.excluded[row.status] += 1
        return
    if clean.excluded is not None:
        found.excluded[clean.excluded] += 1
        return
    if clean.findings_hash in seen:
        found.excluded["duplicate"] += 1
        return
    seen.add(clean.findings_hash)
    if row.split == "train":
        for system in row.systems or ("unknown",):
            found.training[(str(system), str(row.modality))] += 1


def _shown(row: Incoming, clean: cleaning.Cleaned) -> dict[str, str]:
    """A row for a person's eyes: numbers and names as ○○, texts as a model would see them, cut short."""
    moment = row.modified_at or row.examined_at
    return {
        "accession": MASK if row.accession else "",
        "patient": MASK if row.patient else "",
        "status": str(row.status),
        "modality": str(row.modality),
        "systems": " ".join(row.systems),
        "sex": str(row.sex),
        "age": "" if row.age is None else str(row.age),
        "time": "" if moment is None else moment.strftime("%Y-%m-%d %H:%M"),
        "author": MASK if row.author else "",
        "findings": _cut(clean.findings),
        "impression": _cut(clean.impression),
    }


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 28 else flat[:27] + "…"
