"""The ingest process with several hospitals and every lane at once: polls, the daily comparison, a backfill, the nightly search; killed in the middle."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import db
from ingest import backfill, service, standing
from tests.ingest.hospital import FINDINGS, Hospital
from tests.ingest.process import start, wait_for

PAST_DAYS, A_DAY = 5, 30
SETTINGS = {"VALUER_POLL_DEADLINE_S": "20", "VALUER_DUPLICATES_HOURS": "00:00-00:00"}
CORRECTED = "左肺上叶实性小结节。"
NOW = datetime.now(UTC).replace(microsecond=0)


def described(hospital: Hospital, **replaced: str) -> None:
    """The hospital's file for the service: polled every second, its past backfilled at any hour, slowly."""
    path = hospital.settings.institutions_dir / f"{hospital.code}.toml"
    live_from = (NOW - timedelta(days=25)).date()
    text = path.read_text("utf-8").replace("settle_s = 0", f"settle_s = 0\nevery_s = 1\nlive_from = {live_from}")
    for old, new in replaced.items():
        text = text.replace(old, new)
    path.write_text(f'{text}\n[backfill]\nhours = "00:00-00:00"\nrows_per_s = 20\n', "utf-8")


def standing_of(hospital: Hospital) -> dict[str, dict[str, Any]]:
    with db.transaction(hospital.ours) as session:
        return {row["name"]: row for row in standing.status(session)}


def a_day_passes(hospital: Hospital) -> None:
    """The last comparisons were made a day earlier than they were."""
    with db.transaction(hospital.ours) as session:
        session.execute(sa.text("UPDATE reconciled_days SET compared_at = compared_at - interval '25 hours'"))


def compared_lately(hospital: Hospital, codes: set[str]) -> bool:
    query = "SELECT institution FROM reconciled_days WHERE compared_at > now() - interval '24 hours' GROUP BY 1 HAVING count(*) = 30"
    with db.transaction(hospital.ours) as session:
        return codes <= set(session.execute(sa.text(query)).scalars())


def test_polls_comparison_and_backfill_go_on_beside_each_other_and_after_a_kill(
    north: Hospital, south: Hospital, black_hole: int, broker_url: str
) -> None:
    old = NOW - timedelta(days=12)  # within the comparison, far behind the overlap of every poll
    words = {"north": FINDINGS, "south": "双侧大脑半球对称，左侧基底节区见斑片状低密度影。"}
    for hospital in (north, south):
        for key in range(10):
            hospital.write(key, at=old + timedelta(minutes=key), yx=f"{words[hospital.code]}第{key}例。")
        hospital.write(50, at=NOW - timedelta(hours=1))
        described(hospital)
    for key in range(PAST_DAYS * A_DAY):
        at = NOW - timedelta(days=200 + key // A_DAY)
        north.write(1000 + key, at=at, yx=f"{FINDINGS}既往第{key}例，另见条索影{key * 7}处。")
    hole = (north.settings.institutions_dir / "north.toml").read_text("utf-8").replace('"north"', '"hole"')
    source = f'url = "mysql://a@127.0.0.1:{black_hole}/b"'
    (north.settings.institutions_dir / "hole.toml").write_text(hole.replace(north.address, source), "utf-8")

    service.look(north.ours, north.settings)
    with db.transaction(north.ours) as session:
        last = (NOW - timedelta(days=199)).date()
        asked = backfill.ask(session, "north", last - timedelta(days=PAST_DAYS + 1), last)

    def past() -> backfill.Progress:
        with db.transaction(north.ours) as session:
            return backfill.progress(session, "north")

    process = start(north, broker_url, **SETTINGS)
    try:
        wait_for(lambda: len(north.reports()) >= 11 and len(south.reports()) == 11)
        wait_for(lambda: compared_lately(north, {"north", "south"}), 180)
        wait_for(lambda: past().rows_read > 0, 120)
        north.write(51, at=NOW - timedelta(minutes=30))  # while the backfill runs
        wait_for(lambda: north.keyring.pseudonym("north", "accession", "A-51") in north.reports())
        assert 0 < past().done < asked
        assert past().rows_read < PAST_DAYS * A_DAY
        process.kill()
        process.wait()

        for hospital in (north, south):
            hospital.write(3, at=old + timedelta(minutes=3), yx=f"{words[hospital.code]}第3例。", zd=CORRECTED)
            with hospital.connection.cursor() as cursor:
                cursor.execute("DELETE FROM report WHERE k = 4")
        a_day_passes(north)
        process = start(north, broker_url, **SETTINGS)
        wait_for(lambda: past().done == asked, 180)
        assert (past().rows_read, past().quarantined) == (PAST_DAYS * A_DAY, 0)
        wait_for(lambda: compared_lately(north, {"north", "south"}), 180)
        for hospital in (north, south):
            assert (hospital.report(3).impression_raw, hospital.report(3).version) == (CORRECTED, 2)
            assert hospital.report(4).excluded is None
        a_day_passes(north)
        wait_for(lambda: {north.report(4).excluded, south.report(4).excluded} == {"absent"}, 180)
        stands = standing_of(north)
        assert (stands["hole"]["failure"], stands["hole"]["reports"]) == ("deadline", 0)
        for code in ("north", "south"):
            assert stands[code]["failure"] is None
            assert stands[code]["reconciled"]["absent"] == 1
        assert stands["north"]["reports"] == 12 + PAST_DAYS * A_DAY
        assert Counter(report.status for report in north.reports().values()) == {"final": 12 + PAST_DAYS * A_DAY}
        with db.transaction(north.ours) as session:
            found = standing.searched(session)
        assert found is not None
        assert found["ended_at"] is not None
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
