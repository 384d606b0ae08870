"""What cannot be taken is kept whole, sealed and named, and taken later when the mapping is mended."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import db
from core.db import new_id
from core.errors import NotFound
from ingest import mapping, quarantine
from tests.ingest.hospital import FINDINGS, IMPRESSION, NOON, Hospital


def test_nothing_is_dropped_and_a_rejected_row_waits_with_its_reason(north: Hospital) -> None:
    north.write(1)
    north.write(2, zd="")
    north.write(3, st="7")
    north.write(4, age="很大")
    result = north.poll()
    assert (result.rows_read, result.stored, result.quarantined) == (4, 1, 3)
    with db.transaction(north.ours) as session:
        waiting = quarantine.list_open(session, "north")
        assert quarantine.list_open(session, "north", "bad_age")[0]["context"]["column"] == "age"
        assert quarantine.list_open(session, "elsewhere") == []
    assert sorted(row["reason"] for row in waiting) == ["bad_age", "empty_impression", "unknown_status"]
    assert FINDINGS[:6] not in str(waiting)


def test_the_content_is_sealed_and_opens_for_a_person(north: Hospital) -> None:
    north.write(3, st="7")
    north.poll()
    (row,) = north.quarantined()
    with north.ours.connect() as connection:
        stored = str(
            connection.execute(sa.text("SELECT quarantine::text, encode(raw, 'escape') FROM quarantine")).one()
        )
    assert FINDINGS[:6] not in stored
    assert "吴桐桐" not in stored
    assert "A-3" not in stored
    with db.transaction(north.ours) as session:
        shown = quarantine.show(session, north.keyring, row.id)
        assert shown["content"]["impression"] == IMPRESSION
        assert shown["content"]["status"] == "7"
        with pytest.raises(NotFound):
            quarantine.show(session, north.keyring, new_id())


def test_a_row_that_stays_wrong_is_kept_once(north: Hospital) -> None:
    north.write(3, st="7")
    for _ in range(3):
        north.poll()
    (row,) = north.quarantined()
    assert row.times == 1


def test_a_mended_mapping_takes_what_lay_in_quarantine(north: Hospital) -> None:
    north.write(1, st="7")
    north.write(2, zd="")
    north.poll()
    north.describe(**{"7": "final"})
    of = mapping.load(north.settings.institutions_dir / "north.toml")
    replayed = quarantine.replay(north.ours, north.keyring, {"north": of})
    assert (replayed.taken, replayed.left) == (1, 1)
    assert north.report(1).impression == IMPRESSION
    assert [row.reason for row in north.quarantined()] == ["empty_impression"]


def test_a_row_that_the_hospital_mends_leaves_quarantine_by_itself(north: Hospital) -> None:
    north.write(2, zd="")
    north.poll()
    north.write(2, at=NOON + timedelta(minutes=1))
    assert north.poll().stored == 1
    assert north.quarantined() == []


def test_a_feed_that_no_longer_fits_its_mapping_stops_before_it_fills_the_quarantine(north: Hospital) -> None:
    for key in range(200):
        north.write(key, st="7" if key < 100 else "1")
    result = north.poll()
    assert (result.error, result.quarantined, result.stored) == ("too_many_rejects", 100, 100)
    with north.ours.connect() as connection:
        assert connection.execute(sa.text("SELECT count(position_at) FROM cursors")).scalar_one() == 0
    north.describe(**{"7": "final"})
    result = north.poll()
    assert (result.error, result.stored, result.unchanged) == (None, 100, 100)
    assert north.quarantined() == []


def test_a_replay_can_be_tried_and_kept_to_one_reason(north: Hospital) -> None:
    north.write(1, st="7")
    north.write(2, st="7", zd="")
    north.write(3, st="8")
    north.write(4, age="很大")
    north.poll()
    with db.transaction(north.ours) as session:
        counted = {(row["reason"], row["rows"]) for row in quarantine.counts(session, "north")}
    assert counted == {("unknown_status", 3), ("bad_age", 1)}
    north.describe(**{"7": "final"})
    of = {"north": mapping.load(north.settings.institutions_dir / "north.toml")}
    tried = quarantine.replay(north.ours, north.keyring, of, reason="unknown_status", dry_run=True)
    assert (tried.taken, tried.left, tried.reasons) == (1, 2, {"empty_impression": 1, "unknown_status": 1})
    assert (north.reports(), len(north.quarantined())) == ({}, 4)
    assert {row.attempts for row in north.quarantined()} == {0}
    done = quarantine.replay(north.ours, north.keyring, of, reason="unknown_status")
    assert (done.taken, done.left, done.reasons) == (tried.taken, tried.left, tried.reasons)
    waiting = {row.reason: row.attempts for row in north.quarantined()}
    assert waiting == {"empty_impression": 1, "unknown_status": 1, "bad_age": 0}


def test_an_old_row_that_is_taken_late_does_not_replace_what_came_since(north: Hospital) -> None:
    north.write(1, st="7")
    north.poll()
    (old,) = north.quarantined()
    with db.transaction(north.ours) as session:
        session.execute(sa.text("UPDATE quarantine SET context = context - 'source_id'"))  # as of a row without its key
    north.write(1, zd="左肺上叶实性小结节。", at=NOON + timedelta(minutes=1))
    north.poll()
    north.describe(**{"7": "final"})
    of = {"north": mapping.load(north.settings.institutions_dir / "north.toml")}
    assert quarantine.replay(north.ours, north.keyring, of, [old.id]).taken == 1
    assert north.report(1).impression == "左肺上叶实性小结节。"


def test_more_rows_than_a_page_are_replayed_in_one_go(north: Hospital) -> None:
    rows = quarantine.PAGE + 3
    for key in range(rows):
        north.write(key, st="7")
    north.poll()
    north.describe(**{"7": "final"})
    of = {"north": mapping.load(north.settings.institutions_dir / "north.toml")}
    assert quarantine.replay(north.ours, north.keyring, of).taken == rows
    assert (len(north.reports()), north.quarantined()) == (rows, [])
