"""Whatever the order of arrival, however often, and wherever a poll was cut off: what is held in the end is what the source says.

A machine writes versions of a few reports into a real hospital table, polls whole or cuts a poll short after some batches (as a kill does: what was
stored stays, the rest is lost), hands rows in again in any order as a second feed would, commits late, compares days. In the end everything that was
ever written is handed in once more, and what is held must be what one clean pass over the same versions gives.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from core import db
from ingest import mapping, poll, reconcile, service
from ingest.cursor import Position
from ingest.poll import PollResult
from ingest.sources import Batch, Resume, Unknown
from ingest.sql import SqlSource
from tests.ingest.hospital import FINDINGS, NOON, Hospital

KEYS = st.integers(1, 5)
STATUS = st.sampled_from(["0", "1", "2", "3", "9", "7"])  # 3 takes a signature back, 7 is no code
MINUTES = st.integers(0, 6)
COLUMNS = (
    "source_id", "accession", "patient", "known_name", "status", "findings", "impression", "sex", "age", "modality", "part", "modified_at",
)  # fmt: skip
"""What the hospital's SELECT yields, in its order."""
STATUS_AT, IMPRESSION_AT, TIME_AT = COLUMNS.index("status"), COLUMNS.index("impression"), COLUMNS.index("modified_at")
RANKS = {"0": 0, "3": 1, "1": 2, "2": 3, "9": 4}


class Cut(Exception):
    """The poll was killed here."""


class Short(SqlSource):
    """A source that is cut off after so many batches of two rows."""

    def __init__(self, of: mapping.Mapping, after: int) -> None:
        super().__init__(of, deadline_s=60)
        self._after = after

    def batches(
        self, positions: Mapping[str, Position], clock: datetime, resume: Resume, unknown: Unknown | None = None
    ) -> Generator[Batch, None, None]:
        """Two rows at a time, until it is cut off."""
        for batch in super().batches(positions, clock, resume, unknown):
            for at in range(0, len(batch.rows), 2):
                if self._after == 0:
                    raise Cut
                self._after -= 1
                part = batch.rows[at : at + 2]
                position = batch.position if at + 2 >= len(batch.rows) else None
                yield Batch(batch.stream, batch.columns, part, position, None, batch.as_of)


def version(key: int, status: str, impression: str, at: datetime) -> tuple[Any, ...]:
    """One version of a report as the hospital's table has it."""
    return (
        key,
        f"A-{key}",
        f"P-{key:05d}",
        "吴桐桐",
        status,
        f"{FINDINGS}第{key}例。",
        impression,
        "F",
        "61",
        "CT",
        "胸部",
        at,
    )


class Machine(RuleBasedStateMachine):
    """One hospital; `written` is every version that it ever had."""

    hospital: Hospital

    @initialize()
    def empty(self) -> None:
        """A hospital without a report, and nothing held of it."""
        self.hospital.connection.execute("TRUNCATE report")
        with db.transaction(self.hospital.ours) as session:
            session.execute(sa.text("TRUNCATE reports, cursors, quarantine, reconciled_days, audit_events CASCADE"))
        self.written: list[tuple[Any, ...]] = []
        self.late: psycopg.Connection[Any] | None = None

    @rule(key=KEYS, status=STATUS, minutes=MINUTES, text=st.integers(0, 2))
    def write(self, key: int, status: str, minutes: int, text: int) -> None:
        """The hospital writes a version of a report; its clock may stand still or go back."""
        impression, at = f"右肺上叶结节，第{text}稿。", NOON + timedelta(minutes=minutes)
        self.written.append(version(key, status, impression, at))
        self.hospital.write(key, at=at, st=status, zd=impression)

    @rule()
    @precondition(lambda self: self.late is None)
    def begin_late(self) -> None:
        """A session of the hospital writes a report that it will only commit later."""
        address = self.hospital.ours.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.late = psycopg.connect(address)
        row = version(6, "1", f"左肺下叶炎症，第{len(self.written)}稿。", NOON)
        self.written.append(row)
        self.late.execute("DELETE FROM his.report WHERE k = 6")
        self.late.execute(f"INSERT INTO his.report VALUES ({', '.join(['%s'] * len(row))})", row)

    @rule()
    @precondition(lambda self: self.late is not None)
    def commit_late(self) -> None:
        """It commits."""
        assert self.late is not None
        self.late.commit()
        self.late.close()
        self.late = None

    @rule(after=st.integers(0, 4))
    def poll(self, after: int) -> None:
        """A poll that is cut off, or is not when there is less to read than that."""
        with contextlib.closing(Short(self.of, after)) as source, contextlib.suppress(Cut):
            poll.poll(
                self.hospital.ours, source, self.of, self.hospital.keyring, budget_s=60, resume={}, told=lambda _: None
            )

    @rule(data=st.data())
    def hand_in_again(self, data: st.DataObject) -> None:
        """Versions that were written once arrive again, in any order, as many times as you like."""
        if self.written:
            self.take(data.draw(st.lists(st.sampled_from(self.written), min_size=1, max_size=6)))

    @rule()
    def compare(self) -> None:
        """The daily comparison."""
        reconcile.compare(
            self.hospital.ours, self.of, self.hospital.keyring, [NOON.date()], deadline_s=60, told=lambda _: None
        )

    def teardown(self) -> None:
        """Everything that was ever written arrives once more; then what is held is what it should be."""
        if not hasattr(self, "written"):
            return
        if self.late is not None:
            self.commit_late()
        self.take(self.written)
        held = self.held()
        with db.transaction(self.hospital.ours) as session:
            session.execute(sa.text("TRUNCATE reports, cursors, quarantine CASCADE"))
        if self.written:
            self.take(sorted(self.written, key=lambda row: (row[TIME_AT], row[STATUS_AT], row[IMPRESSION_AT])))
        assert held == self.held()
        assert {key: row[:3] for key, row in held.items()} == self.expected()

    @property
    def of(self) -> mapping.Mapping:
        """The hospital's mapping."""
        return mapping.load(self.hospital.settings.institutions_dir / "north.toml")

    def take(self, rows: list[tuple[Any, ...]]) -> PollResult:
        """Rows as any lane takes them, three a batch."""

        def batches() -> Iterator[Batch]:
            for at in range(0, len(rows), 3):
                yield Batch("reports", COLUMNS, rows[at : at + 3], None, None, NOON)

        return poll.take(
            self.hospital.ours, self.of, self.hospital.keyring, (each for each in batches()), budget_s=60, resume={}, told=lambda _: None
        )  # fmt: skip

    def held(self) -> dict[str, tuple[Any, ...]]:
        """What stands of each report, and every version that arrived."""
        with db.transaction(self.hospital.ours) as session:
            rows = session.execute(
                sa.text(
                    "SELECT accession, status, impression_raw, modified_at, content_hash FROM reports WHERE excluded IS DISTINCT FROM 'absent'"
                )
            ).all()
        return {row[0]: tuple(row[1:]) for row in rows}

    def expected(self) -> dict[str, tuple[Any, ...]]:
        """The definition: of the versions that can be read, a retraction, else the latest that is not preliminary, else a preliminary; of one
        moment the stronger. (Of two texts of one status and moment any may stand, but always the same.)"""
        names = {"0": "preliminary", "3": "unsigned", "1": "final", "2": "amended", "9": "retracted"}
        found: dict[str, tuple[Any, ...]] = {}
        for key in {row[0] for row in self.written}:
            mine = [row for row in self.written if row[0] == key and row[STATUS_AT] in RANKS]
            if not mine:
                continue
            strongest = max(map(self.strength, mine))
            pseudonym = self.hospital.keyring.pseudonym("north", "accession", f"A-{key}")
            texts = {row[IMPRESSION_AT]: row for row in mine if self.strength(row) == strongest}
            row = texts[self.held()[pseudonym][1]]
            found[pseudonym] = (names[row[STATUS_AT]], row[IMPRESSION_AT], row[TIME_AT])
        return found

    @staticmethod
    def strength(row: tuple[Any, ...]) -> tuple[Any, ...]:
        """What makes a version stronger, in words of the note: rank, among signed and reopened ones the time, then rank, then time."""
        status, at = row[STATUS_AT], row[TIME_AT]
        alike = status in ("1", "2", "3")
        return (3 if alike else RANKS[status], at if alike else NOON - timedelta(days=1), RANKS[status], at)


def test_any_order_repetition_and_interruption_ends_in_the_same_reports(north: Hospital) -> None:
    north.describe(**{"3": "unsigned"})
    service.look(north.ours, north.settings)
    Machine.hospital = north
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
