"""How much the system adds to a model, and how it holds up: overhead per draft, drafts per second, the curve over what waits, a stat request
before a long queue. The engine answers at once; everything else is what a hospital runs.
"""

import argparse
import json
import statistics
import threading
import time
from typing import Any

import psutil

from bench.ward.house import FINDINGS, INSTITUTION, Door, House
from core import db, queue, requests
from core.identity import Keyring
from core.settings import QueueSettings

LANES = 8
"""Requests in flight in the worker, and beside them two threads for stat."""


def overhead(house: House, count: int, name: str) -> list[float]:
    """Milliseconds from the 202 in the sender's hands to the stored draft that another connection sees, one request after another."""
    door, took = Door(house), []
    with house.reading() as connection:
        for number in range(count):
            status, answer = door.send(f"{name}-{number}")
            sent = time.perf_counter()
            assert status == 202, answer
            while not connection.execute(
                "SELECT 1 FROM drafts WHERE request_id = %s AND visible", [answer["id"]]
            ).fetchone():
                time.sleep(0.0005)
            took.append(1000 * (time.perf_counter() - sent))
    return took


def throughput(house: House, count: int, senders: int = 4) -> dict[str, float]:
    """Drafts per second end to end: from the first request sent over HTTP to the last draft stored, `senders` sending at once."""

    def send(lane: int) -> None:
        door = Door(house)
        for number in range(lane, count, senders):
            status, answer = door.send(f"many-{number}")
            assert status == 202, answer

    cpu, began = _cpu(), time.perf_counter()
    threads = [threading.Thread(target=send, args=(lane,)) for lane in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = time.perf_counter() - began
    house.until(lambda: _waiting(house) == 0, 300, 0.02)
    took = time.perf_counter() - began
    return {
        "drafts_per_s": round(count / took, 1),
        "accepted_per_s": round(count / accepted, 1),
        "cpu_ms_per_draft": round(1000 * (_cpu() - cpu) / count, 2),
    }


def curve(house: House, depths: tuple[int, ...], count: int) -> list[dict[str, float]]:
    """Drafts per second while so many more wait, and what the claim costs the database then."""
    return [_point(house, depth, count) for depth in depths]


def _point(house: House, depth: int, count: int) -> dict[str, float]:
    _fill(house, depth + count, f"deep-{depth}")
    (worker,) = house.start("worker")
    house.until(lambda: _waiting(house) < depth + count, 60, 0.01)
    first, began = _waiting(house), time.perf_counter()
    house.until(lambda: _waiting(house) <= depth, 300, 0.02)
    took = time.perf_counter() - began
    drafted = first - _waiting(house)
    house.stop(worker)
    point = {"waiting": depth, "drafts_per_s": round(drafted / took, 1), "claim_ms": round(_claim_ms(house), 3)}
    with house.reading() as connection:
        connection.execute("UPDATE draft_requests SET state = 'cancelled' WHERE state IN ('queued', 'drafting')")
        connection.execute("VACUUM draft_requests")
    return point


def overtake(house: House, waiting: int, count: int) -> list[float]:
    """Seconds from the 202 of a stat request to its stored draft while so many routine ones wait and are being drafted."""
    _fill(house, waiting, "line")
    (worker,) = house.start("worker", "0.05")
    door, took = Door(house), []
    house.until(lambda: _waiting(house) < waiting, 60, 0.01)
    with house.reading() as connection:
        for number in range(count):
            status, answer = door.send(f"stat-{number}", priority="stat")
            sent = time.perf_counter()
            assert status == 202, answer
            query = "SELECT 1 FROM drafts WHERE request_id = %s AND visible"
            while not connection.execute(query, [answer["id"]]).fetchone():
                time.sleep(0.002)
            took.append(time.perf_counter() - sent)
            time.sleep(0.1)
        assert _waiting(house) > 0.5 * waiting, "the line was over before the stat requests were"
        house.stop(worker)
        connection.execute("UPDATE draft_requests SET state = 'cancelled' WHERE state IN ('queued', 'drafting')")
    return took


def _waiting(house: House) -> int:
    with house.reading() as connection:
        row = connection.execute("SELECT count(*) FROM draft_requests WHERE state IN ('queued', 'drafting')").fetchone()
    assert row is not None
    return int(row[0])


def _claim_ms(house: House) -> float:
    """What PostgreSQL says that looking for the best waiting request takes now, median of nine."""
    query = (
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM draft_requests WHERE state = 'queued'"
        " AND (not_before IS NULL OR not_before <= clock_timestamp()) AND institution IN (%s)"
        " ORDER BY is_stat DESC, due_at LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    with house.reading() as connection:
        plans = [connection.execute(query, [INSTITUTION]).fetchone() for _ in range(9)]
    return float(statistics.median(plan[0][0]["Execution Time"] for plan in plans if plan is not None))


def _fill(house: House, count: int, name: str) -> None:
    """So many requests that wait, each rung for: the first through core.requests, the others as copies of its row."""
    keyring = Keyring.load(house.home / "master.key")
    engine = db.connect(house.servers.database_url, pool_size=1)
    with db.transaction(engine) as session:
        body = requests.parse(
            {
                "institution": INSTITUTION,
                "accession": name,
                "modality": "CT",
                "body_part": "chest",
                "patient": {"id": "P", "sex": "F", "age": 61},
                "findings": FINDINGS,
            }
        )
        actor = requests.Actor("process", "bench", "system", INSTITUTION)
        made = requests.accept(session, keyring, body, actor, door="http", queue=QueueSettings())
    engine.dispose()
    with house.reading() as connection:
        cursor = connection.execute("SELECT * FROM draft_requests WHERE id = %s", [made.id])
        columns = [column.name for column in cursor.description or ()]
        given = {
            "id": "gen_random_uuid()",
            "accession": "accession || '-' || n",
            "due_at": "due_at + n * interval '1 ms'",
        }
        connection.execute(
            f"INSERT INTO draft_requests ({', '.join(columns)}) SELECT {', '.join(given.get(c, c) for c in columns)}"  # noqa: S608 - our own names
            " FROM draft_requests, generate_series(1, %s) n WHERE id = %s",
            [count - 1, made.id],
        )
        connection.execute("ANALYZE draft_requests")
    queue.configure(house.servers.broker_url)
    for _ in range(min(count, 2 * LANES)):
        queue.ring("routine", made.id)


def _cpu() -> float:
    """CPU seconds of this process, of those it started and of the servers so far."""
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True), *_servers()]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _servers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if any("valuer-bench-" in part for part in process.info["cmdline"] or ()):
            found += [process, *process.children()]
    return found


def main() -> None:
    """Measures and prints one JSON object on the last line."""
    parser = argparse.ArgumentParser(prog="bench/queue.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests, and a queue of 10,000 instead of 50,000")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    options = parser.parse_args()
    settings = {"VALUER_IN_FLIGHT": str(LANES), "VALUER_LOG_LEVEL": "WARNING"}
    with House(**settings) as house:
        house.start("worklist")
        house.start("clerk")
        (worker,) = house.start("worker")
        house.until(lambda: house.ready("worklist") and house.ready("worker"), 90)
        overhead(house, 20, "warm")  # caches and connections
        singles = overhead(house, 100 if options.quick else 400, "one")
        whole = throughput(house, 600 if options.quick else 3_000)
        house.stop(worker)
        depths = (0, 1_000, 10_000) if options.quick else (0, 1_000, 10_000, 50_000)
        points = curve(house, depths, 300 if options.quick else 1_000)
        stats = overtake(house, 10_000, 10 if options.quick else 30)
    result: dict[str, Any] = {
        "overhead_p50_ms": round(statistics.median(singles), 2),
        "overhead_p95_ms": round(statistics.quantiles(singles, n=20)[-1], 2),
        **whole,
        "stat_overtake_s": round(statistics.median(stats), 3),
        "stat_overtake_worst_s": round(max(stats), 3),
        "curve": points,
    }
    if not options.json:
        print(
            f"overhead from 202 to stored draft: {result['overhead_p50_ms']} ms p50, {result['overhead_p95_ms']} ms p95"
        )
        print(
            f"end to end: {whole['drafts_per_s']} drafts/s, {whole['cpu_ms_per_draft']} ms of CPU each, sender and servers included"
        )
        for point in points:
            print(
                f"{point['waiting']:>7,} more waiting: {point['drafts_per_s']} drafts/s, claim {point['claim_ms']} ms"
            )
        print(f"stat before 10,000 routine: {result['stat_overtake_s']} s, worst {result['stat_overtake_worst_s']} s")
    print(json.dumps(result))
