"""The disk of our own database runs full in the middle of a poll: nothing is lost, the cursor stays, and reading goes on when there is room.

The database lies in a tablespace on a small tmpfs, so only root can run this.
"""

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from core import db
from core.embedded import Servers
from core.place import find
from ingest import standing
from tests.ingest.hospital import NOON, Hospital

SMALL, LARGE = "36m", "400m"
FIRST, MORE = 5000, 4000
"""A first batch that fits, and rows that do not."""


@dataclass
class Disk:
    """A disk that can be given more room."""

    path: Path

    def resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)


@pytest.fixture
def disk(servers: Servers, server_home: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    path = Path(tempfile.mkdtemp(prefix="valuer-small-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(path)], check=False)
    if mounted.returncode:
        path.rmdir()
        pytest.skip("this machine does not let us mount a tmpfs")
    place = find(server_home)
    if place.uid is not None and place.gid is not None:
        os.chown(path, place.uid, place.gid)
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


@pytest.fixture
def full(north: Hospital, disk: Disk, servers: Servers, template: str) -> Iterator[Hospital]:
    """The hospital, with our database on the small disk."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        connection.execute(f"CREATE DATABASE test_full TEMPLATE {template} TABLESPACE small")
    url = sa.make_url(servers.database_url).set(database="test_full").render_as_string(hide_password=False)
    engine = db.connect(url)
    patient = north.settings.model_copy(update={"poll_deadline_s": 300})
    yield replace(north, ours=engine, settings=patient)
    engine.dispose()
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE test_full WITH (FORCE)")
        connection.execute("DROP TABLESPACE small")


def written(hospital: Hospital, first: int, rows: int, words: Callable[[int], str]) -> None:
    with (
        hospital.connection.cursor() as cursor,
        cursor.copy("COPY report (k, acc, pid, st, yx, zd, sex, age, dev, part, changed) FROM STDIN") as copy,
    ):
        for key in range(first, first + rows):
            text = f"右肺上叶见结节影，编号{key}。{words(key)}"
            copy.write_row((key, f"A-{key}", f"P-{key}", "1", text, "右肺结节。", "F", "50", "CT", "胸部", NOON))


def stands(hospital: Hospital) -> dict[str, Any]:
    with db.transaction(hospital.ours) as session:
        (row,) = standing.status(session)
    return row


def test_a_full_disk_of_ours_loses_nothing_and_reading_goes_on_when_there_is_room(full: Hospital, disk: Disk) -> None:
    chance = random.Random(5)
    written(full, 0, FIRST, lambda key: "")
    written(
        full, FIRST, MORE, lambda key: "".join(chance.choices("肺叶见结节影右左上下密度边缘光整未见异常。，", k=3000))
    )
    for _ in range(2):
        result = full.poll()
        assert result.error == "database_full"
        with db.transaction(full.ours) as session:
            held = session.execute(sa.text("SELECT count(*) FROM reports")).scalar_one()
            position = session.execute(
                sa.text("SELECT position_key FROM cursors WHERE position_at IS NOT NULL")
            ).scalar_one()
        assert (held, position) == (FIRST, str(FIRST - 1))
        row = stands(full)
        assert row["failure"] == "database_full"
        assert row["message"] == "Our own database has no room left on its disk; nothing was stored."
    disk.resize(LARGE)
    result = full.poll()
    assert (result.error, result.stored, result.quarantined) == (None, MORE, 0)
    with db.transaction(full.ours) as session:
        keys = set(session.execute(sa.text("SELECT accession FROM reports")).scalars())
    assert keys == {full.keyring.pseudonym("north", "accession", f"A-{key}") for key in range(FIRST + MORE)}
    row = stands(full)
    assert (row["failure"], row["message"], row["reports"]) == (None, None, FIRST + MORE)
