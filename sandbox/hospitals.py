"""Six pretend hospitals as real databases, each with its own schema, codes and habits, and the institution file that maps it.

`build` makes or refreshes them and gives them a past; `pending` adds examinations that are described but not concluded; `finish` is the
hospital's own reporting system signing a report later. Each may be repeated: what is there already is not added twice.

House 1 PostgreSQL, clean · 2 MariaDB in GBK (a GBK file drop without a server) · 3 GB18030 files · 4 PostgreSQL, two tables ·
5 PostgreSQL, traditional script · 6 PostgreSQL, a view in pinyin initials with text dates.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import psycopg
import pymysql
import sqlalchemy as sa
from psycopg import errors, sql

from sandbox.facts import PretendReport
from sandbox.records import RECORDS, lines
from sandbox.stores import FileStore, MariaStore, PostgresStore, Store

HOUSES = (1, 2, 3, 4, 5, 6)
SCHEMAS = Path(__file__).with_name("schemas")
CHUNK = 2000
READER = "reader"

Kind = Literal["postgresql", "mariadb", "files"]
_TABLES = {
    1: ("his_1.report", "accession_no"),
    4: ("his_4.report", "acc"),
    5: ("his_5.imaging_report", "order_no"),
    6: ("his_6.jcbg", "jch"),
}
_READABLE = {1: "his_1.report", 4: "his_4.report, his_4.result", 5: "his_5.imaging_report", 6: "his_6.v_ris_bg"}


@dataclass(frozen=True, slots=True)
class HospitalFile:
    """One pretend hospital: its institution file, what it keeps its reports in, and how many reports this call added."""

    code: str
    path: Path
    kind: Kind
    reports: int


def build(
    home: Path, reports: Iterable[PretendReport], *, postgres_url: str, mariadb_url: str | None = None
) -> list[HospitalFile]:
    """Makes the six hospitals with `reports` as their past, and writes `sandbox-1.toml` … `sandbox-6.toml` into `home/institutions`.

    PostgreSQL hospitals get a database of their own on the server of `postgres_url`, named in `home/sandbox/name`, and a reader role where
    the server allows it. Reports are changed last when they were signed.
    """
    with ExitStack() as stack:
        hospitals = _open(stack, home, postgres_url, mariadb_url)
        added = dict.fromkeys(HOUSES, 0)
        for chunk in _chunks(reports):
            for house in HOUSES:
                added[house] += _write(
                    hospitals[house].store, house, [r for r in chunk if r.house == house], replace_existing=False
                )
        return [
            HospitalFile(
                f"sandbox-{house}", _describe(home, house, hospitals[house]), hospitals[house].kind, added[house]
            )
            for house in HOUSES
        ]


def pending(home: Path, reports: Iterable[PretendReport], *, postgres_url: str, mariadb_url: str | None = None) -> int:
    """Adds examinations that are described but neither concluded nor verified, changed now; returns how many were new."""
    return _add(
        home,
        (replace(r, status="preliminary", impression="") for r in reports),
        postgres_url,
        mariadb_url,
        replace_existing=False,
    )


def finish(home: Path, reports: Iterable[PretendReport], *, postgres_url: str, mariadb_url: str | None = None) -> int:
    """The reporting systems sign: each report is written as it now is, over what stood there for its accession, changed now."""
    return _add(home, iter(reports), postgres_url, mariadb_url, replace_existing=True)


def _add(
    home: Path, reports: Iterator[PretendReport], postgres_url: str, mariadb_url: str | None, *, replace_existing: bool
) -> int:
    with ExitStack() as stack:
        hospitals = _open(stack, home, postgres_url, mariadb_url)
        written = 0
        for chunk in _chunks(reports):
            for house in HOUSES:
                mine = [report for report in chunk if report.house == house]
                written += _write(hospitals[house].store, house, mine, replace_existing=replace_existing, now=True)
        return written


def _write(store: Store, house: int, reports: list[PretendReport], *, replace_existing: bool, now: bool = False) -> int:
    if not reports:
        return 0
    moment = store.clock() if now else None
    rows = [RECORDS[house](report, moment or report.signed_at) for report in reports]
    return store.write(
        rows, [line for report in reports for line in lines(report)] if house == 4 else [], replace=replace_existing
    )


def _chunks(reports: Iterable[PretendReport]) -> Iterator[list[PretendReport]]:
    rest = iter(reports)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


# --- servers -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hospital:
    store: Store
    kind: Kind
    reader_url: sa.URL | None
    folder: Path | None


def _open(stack: ExitStack, home: Path, postgres_url: str, mariadb_url: str | None) -> dict[int, _Hospital]:
    name = _name(home)
    admin, reader = _postgres(postgres_url, name)
    hospitals: dict[int, _Hospital] = {}
    for house, (table, accession) in _TABLES.items():
        connection = stack.enter_context(psycopg.connect(_address(admin)))
        _prepare(connection, house, reader)
        store = PostgresStore(connection, table, accession, "his_4.result" if house == 4 else None)
        hospitals[house] = _Hospital(store, "postgresql", reader, None)
    if mariadb_url is None:
        folder = home / "sandbox" / "house-2"
        hospitals[2] = _Hospital(FileStore(folder, "gbk", "检查号"), "files", None, folder)
    else:
        maria, maria_reader = _mariadb(stack, mariadb_url, name)
        hospitals[2] = _Hospital(MariaStore(maria, "检查报告", "检查号"), "mariadb", maria_reader, None)
    folder = home / "sandbox" / "house-3"
    hospitals[3] = _Hospital(FileStore(folder, "gb18030", "检查流水号"), "files", None, folder)
    return hospitals


def _name(home: Path) -> str:
    """Database name of this home's hospitals: its own, so that two homes may share a server."""
    path = home / "sandbox" / "name"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"sandbox_{secrets.token_hex(4)}\n", "ascii")
    return path.read_text("ascii").strip()


def _address(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def _reader_password(url: sa.URL) -> str | None:
    """The same for every home of a server; none where the server asks none of its administrator either."""
    return hashlib.sha256(f"sandbox reader\n{url.password}".encode()).hexdigest()[:32] if url.password else None


def _postgres(postgres_url: str, name: str) -> tuple[sa.URL, sa.URL]:
    """Addresses of the hospitals' database as its owner and as its reader; created if missing and allowed."""
    server = sa.make_url(postgres_url).set(drivername="postgresql")
    database, user, password = name, f"{name}_{READER}", _reader_password(server)
    with psycopg.connect(_address(server), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except errors.InsufficientPrivilege:
                database = str(server.database)
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone() is None:
            try:
                secret = sql.SQL(" PASSWORD {}").format(sql.Literal(password)) if password else sql.SQL("")
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN{}").format(sql.Identifier(user), secret))
            except errors.InsufficientPrivilege:
                user, password = str(server.username), server.password
    admin = server.set(database=database)
    return admin, sa.URL.create("postgresql", user, password, server.host, server.port, database, server.query)


def _prepare(connection: "psycopg.Connection[Any]", house: int, reader: sa.URL) -> None:
    names = {"schema": sql.Identifier(f"his_{house}"), "reader": sql.Identifier(str(reader.username))}
    readable = sql.SQL(", ").join(sql.Identifier(*table.split(".")) for table in _READABLE[house].split(", "))
    connection.execute((SCHEMAS / f"house-{house}.sql").read_bytes())
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {reader}").format(**names))
    connection.execute(sql.SQL("GRANT SELECT ON {tables} TO {reader}").format(tables=readable, **names))
    connection.commit()


def _mariadb(stack: ExitStack, mariadb_url: str, name: str) -> tuple["pymysql.connections.Connection[Any]", sa.URL]:
    server = sa.make_url(mariadb_url)
    connection = pymysql.connect(
        host=server.host or "127.0.0.1",
        port=server.port or 3306,
        user=server.username or "root",
        password=server.password or "",
        charset="utf8mb4",
        connect_timeout=10,
        read_timeout=60,
    )
    stack.callback(connection.close)
    user, password = f"{name}_{READER}", _reader_password(server)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET gbk")
        connection.select_db(name)
        cursor.execute("SET SESSION sql_notes = 0")
        cursor.execute((SCHEMAS / "house-2.sql").read_text("utf-8"))
        try:
            cursor.execute("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", (user, password or ""))
            cursor.execute(f"GRANT SELECT ON `{name}`.* TO %s@'%%'", (user,))
        except pymysql.err.OperationalError:  # may not create users
            user, password = str(server.username), str(server.password or "")
    connection.commit()
    return connection, sa.URL.create("mariadb", user, password, server.host or "127.0.0.1", server.port or 3306, name)


# --- institution files ---------------------------------------------------------------------------------------------------------


def _describe(home: Path, house: int, hospital: _Hospital) -> Path:
    """Writes the institution file of a house; a password goes into a 0600 file beside it, never into the file itself."""
    folder = home / "institutions"
    folder.mkdir(parents=True, exist_ok=True)
    template = "house-2-files" if house == 2 and hospital.kind == "files" else f"house-{house}"
    text = (SCHEMAS / f"{template}.toml").read_text("utf-8")
    if house == 2:
        text = text.replace("@CODES@", (SCHEMAS / "house-2-codes.toml").read_text("utf-8").rstrip())
    if hospital.folder is not None:
        text = text.replace("@FOLDER@", str(hospital.folder.absolute()))
    if (url := hospital.reader_url) is not None:
        connection = f'url = "{_address(url.set(password=None))}"'
        if url.password:
            secret = folder / f"sandbox-{house}.password"
            _put(secret, url.password, 0o600)
            connection += f'\npassword_file = "{secret.name}"'
        text = text.replace("@CONNECTION@", connection)
    path = folder / f"sandbox-{house}.toml"
    _put(path, text, 0o644)
    return path


def _put(path: Path, text: str, mode: int) -> None:
    """Whole or not at all; an unchanged file is not touched."""
    if path.exists() and path.read_text("utf-8") == text:
        return
    partial = path.with_name(f"{path.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
