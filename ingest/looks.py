"""What `ingest.doctor` looks at in a database: speed, clock, characters, cursor, codes, truncation, and that we cannot write. One small function each.

Each yields findings; together they are `SQL_LOOKS`. Reads only, but for one attempt that has to be refused (see `_read_only`).
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from ingest import writing
from ingest.dialects import MYSQL, POSTGRESQL
from ingest.mapping import Mapping
from ingest.patient import Patient
from ingest.sources import BATCH

Level = Literal["ok", "look", "wrong"]
SKEW_S, JUMP_S = 5.0, 60.0
SLOW_MS = 1000.0
HARD = "東區弢珅玘 5.6×3.2cm² ㎜ 𠮷"
"""Characters that get lost first: GBK whose second byte is a delimiter, what GBK lacks, and four bytes of GB18030."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `look`: it works, and somebody should know; `wrong`: reports would be lost or wrong."""

    name: str
    level: Level
    says: str
    value: float | None = None


def told(error: sa.exc.SQLAlchemyError) -> str:
    """The driver's own words, first line: they name objects and never rows, since no row is sent."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _latency(patient: Patient) -> Iterator[Finding]:
    began = time.perf_counter()
    patient.clock()
    clock_ms = _since(began)
    query = patient.window()
    began = time.perf_counter()
    result = patient.connection.execute(query.limit(BATCH) if patient.dialect.limits else query)
    read = len(result.fetchmany(BATCH))
    result.close()
    window_ms = _since(began)
    level: Level = "look" if patient.connect_ms > SLOW_MS or window_ms > 10 * SLOW_MS else "ok"
    says = f"connecting {patient.connect_ms:.0f} ms, clock {clock_ms:.1f} ms, an ordinary poll's query {window_ms:.0f} ms for its first {read} rows."
    yield Finding("latency", level, says, window_ms)


def _clock(patient: Patient) -> Iterator[Finding]:
    skew = (patient.clock() - datetime.now(UTC)).total_seconds()
    level: Level = "ok" if abs(skew) <= SKEW_S else "look" if abs(skew) <= JUMP_S else "wrong"
    hint = ""
    if abs(skew) > 600 and (abs(skew) + 60) % 1800 < 120:
        hint = " That is a whole zone: is `timezone` right?"
    yield Finding("clock", level, f"their clock is {skew:+.1f} s from ours.{hint if level == 'wrong' else ''}", skew)


def _characters(patient: Patient) -> Iterator[Finding]:
    try:
        back = patient.connection.execute(sa.select(sa.cast(sa.literal(HARD), sa.String(64)))).scalar_one()
    except sa.exc.SQLAlchemyError as error:
        yield Finding(
            "characters", "look", f"the database cannot hold every character of Chinese reports: {told(error)}"
        )
        return
    lost = "".join(a for a, b in zip(HARD, str(back).ljust(len(HARD)), strict=False) if a != b)
    if lost:
        yield Finding(
            "characters", "look", f"{lost} come back changed: reports that need them are lossy at the source."
        )
    else:
        yield Finding("characters", "ok", f"{HARD} comes back as it went.")


def _index(patient: Patient) -> Iterator[Finding]:
    dialect = patient.dialect
    query = patient.window()
    advice = "index (time, key) there, or every poll reads the whole table"
    if dialect not in (POSTGRESQL, MYSQL):
        yield Finding(
            "index", "look", f"not looked at in {dialect.title}: ask for its plan of the poll's query; {advice}."
        )
        return
    compiled = query.compile(patient.connection, compile_kwargs={"literal_binds": True})
    if dialect is POSTGRESQL:
        patient.connection.exec_driver_sql(
            "SET LOCAL enable_seqscan = off"
        )  # a small table is read whole, index or not
        plan = patient.connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}".replace("%", "%%")).scalar_one()
        patient.connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
        uses = any(node.get("Index Cond") for node in _nodes(plan[0]["Plan"]))
    else:
        rows = patient.connection.exec_driver_sql(f"EXPLAIN {compiled}".replace("%", "%%")).mappings().all()
        uses = any(row["possible_keys"] for row in rows)
    if uses:
        yield Finding("index", "ok", "the poll's query can use an index on the cursor column.")
    else:
        yield Finding("index", "look", f"no index serves the poll's query: {advice}.")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _cursor(patient: Patient) -> Iterator[Finding]:
    word = patient.mapping.cursor.time
    rows, without = patient.nulls()
    if not rows:
        yield Finding("rows", "wrong", "the SELECT yields no row at all.", 0)
        return
    share = without / rows
    yield Finding("rows", "ok", f"{rows} rows.", rows)
    yield Finding(
        "no time",
        "ok" if not without else "look",
        f"{without} rows ({share:.1%}) have no {word}; each poll reads them all again."
        if without
        else f"every row has a {word}.",
        share,
    )
    newest = patient.newest()
    times, keys = [at for at, _ in newest], [key for _, key in newest]
    if not times:
        return
    tied = 1 - len(set(times)) / len(times)
    of_day = all(re.fullmatch(r"\d{4}\D?\d\d\D?\d\d", str(at)) or str(at).endswith(" 00:00:00") for at in times)
    note = " They are days without a time." if of_day else ""
    yield Finding(
        "ties",
        "look" if of_day else "ok",
        f"{tied:.1%} of the newest {len(times)} rows share their {word} with another.{note}",
        tied,
    )
    if isinstance(times[0], str) and sorted(times) != sorted(times, key=lambda at: str(_moment(patient.mapping, at))):
        yield Finding(
            "text times", "wrong", f"{word} is text that does not sort as time does: cast it to a time in the SELECT."
        )
    doubled = len(keys) - len(set(keys))
    if doubled:
        yield Finding(
            "key",
            "wrong",
            f"{doubled} of the newest {len(keys)} rows have the key of another row: source_id has to be unique.",
            doubled,
        )
    else:
        yield Finding("key", "ok", f"the keys of the newest {len(keys)} rows are unique.", 0)


def _codes(patient: Patient) -> Iterator[Finding]:
    codes: dict[str, Iterable[str]] = {
        "status": patient.mapping.codes.status,
        "sex": patient.mapping.codes.sex,
        "modality": patient.mapping.codes.modality,
    }
    for word, known in codes.items():
        values = patient.values(word)
        unseen = [(value, count) for value, count in values if value and value not in set(known)]
        if unseen:
            told = ", ".join(f"{value} ({count})" for value, count in unseen[:8])
            yield Finding(
                f"codes {word}", "look", f"[codes.{word}] lacks {told}; these rows go to quarantine.", len(unseen)
            )
        elif values:
            yield Finding(f"codes {word}", "ok", f"all {len(values)} values of {word} are known.")


def _width(patient: Patient) -> Iterator[Finding]:
    widths = patient.widths()
    for word, texts in patient.texts().items():
        most, width = max(map(len, texts)), widths.get(word)
        octets = max(len(text.encode("gb18030", "ignore")) for text in texts)
        pile = sum(len(text) == most for text in texts)
        cut = (width is not None and (most >= width - 1 or octets in (width, width - 1))) or (
            pile >= 5 and pile > len(texts) / 100 and most > 100
        )
        room = "" if width is None else f", the column holds {width}"
        if cut:
            yield Finding(
                f"length {word}",
                "look",
                f"the longest is {most} characters ({pile} of them{room}): texts may be cut off at the source.",
                most,
            )
        else:
            yield Finding(f"length {word}", "ok", f"the longest is {most} characters{room}.", most)
        if writing.lost_charset(writing.Column(word, tuple(texts))):
            yield Finding(
                f"charset {word}",
                "wrong",
                f'this is GBK that the database takes for Latin-1: set {word} = "gb18030" in [source.decode].',
            )


def _read_only(patient: Patient) -> Iterator[Finding]:
    may = _may_write(patient)
    if may is None:
        yield Finding(
            "account",
            "look",
            f"not looked at in {patient.dialect.title}: have the account given SELECT on these tables and nothing else.",
        )
    elif may:
        yield Finding("account", "look", f"the account may also {', '.join(may)}; SELECT is all we need.")
    else:
        yield Finding("account", "ok", "the account may read only.")
    if patient.dialect not in (POSTGRESQL, MYSQL):
        return
    with suppress(sa.exc.SQLAlchemyError):
        if patient.dialect is POSTGRESQL:
            patient.connection.exec_driver_sql("SAVEPOINT valuer_doctor")
        try:
            patient.connection.exec_driver_sql(f"DROP TABLE IF EXISTS valuer_doctor_{secrets.token_hex(8)}")
        except sa.exc.DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None) or (getattr(error.orig, "args", None) or [None])[0]
            refused = code in ("25006", 1792)
            if patient.dialect is POSTGRESQL:
                patient.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT valuer_doctor")
            if refused:
                yield Finding("read-only", "ok", "a write in the poll's transaction is refused by the server.")
                return
        yield Finding(
            "read-only", "wrong", "a write in the poll's transaction was not refused as one in a read-only transaction."
        )


def _may_write(patient: Patient) -> list[str] | None:
    """What the account may do besides reading; None where we do not know how to ask."""
    if patient.dialect is POSTGRESQL:
        query = (
            "SELECT DISTINCT p FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) p"
            " WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname !~ '^(pg_|information_schema)' AND has_table_privilege(c.oid, p) ORDER BY p"
        )
        return [str(row[0]).lower() for row in patient.connection.exec_driver_sql(query)]
    if patient.dialect is MYSQL:
        grants = " ".join(str(row[0]) for row in patient.connection.exec_driver_sql("SHOW GRANTS FOR CURRENT_USER()"))
        found = [
            word
            for word in ("ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "CREATE")
            if re.search(rf"\b{word}\b", grants)
        ]
        return [word.lower() for word in found]
    return None


def _moment(of: Mapping, at: str) -> datetime:
    try:
        return of.source.moment(at)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


SQL_LOOKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    _latency, _clock, _characters, _index, _cursor, _codes, _width, _read_only,
)  # fmt: skip
