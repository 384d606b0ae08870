"""Faults with a seed: workers killed and stopped at random points, Valkey killed and wiped, PostgreSQL killed, deliveries doubled and out of
order, poison. After each run everything must settle, and the invariants are checked from outside by reading PostgreSQL.

What the door acknowledged is written to a file outside of the system as soon as the sender has it.
"""

import argparse
import base64
import binascii
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from bench.ward.engine import DIES, LOOPS, SEGFAULT
from bench.ward.house import FINDINGS, Door, House
from core import audit, db, embedded

CANARY = "金丝雀甲乙丙"
"""A name inside of every text that is sent; it must turn up neither in Valkey nor in a log."""
FAST = {
    "VALUER_LEASE_S": "2",
    "VALUER_HEARTBEAT_S": "0.5",
    "VALUER_RING_AGAIN_S": "2",
    "VALUER_TICK_S": "0.3",
    "VALUER_IN_FLIGHT": "4",
    "VALUER_DEADLINE_S": "20",
}
SETTLES_S = 90.0
"""Longest time from the end of a fault until everything has its answer; most of it is processes that start on a busy machine."""
WORKERS = 2


class Chaos:
    """The system under test, its ledger, and what was done to it."""

    def __init__(self, seed: int, ledger: Path) -> None:
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.violations: list[str] = []
        self._house = House(**FAST)
        self._ledger = ledger.open("a", encoding="utf-8")
        self._writing = threading.Lock()
        self._count = 0
        (self._door,) = self._house.start("worklist")
        (self._clerk,) = self._house.start("clerk")
        self._workers = self._house.start("worker", "0.15", count=WORKERS)
        self._house.until(lambda: self._house.ready("worklist") and self._house.ready("worker", WORKERS), 120)

    def close(self) -> None:
        self._ledger.close()
        self._house.close()

    # what a run does

    def run(self, number: int) -> None:
        """One run: senders, faults at random points, then peace, then the invariants."""
        batch = self._batch(number)
        senders = [threading.Thread(target=self._send, args=(batch[lane::3],)) for lane in range(3)]
        for sender in senders:
            sender.start()
        for fault in self._plan(number):
            time.sleep(self.random.uniform(0.0, 0.8))
            self.faults.append(fault.__name__.strip("_"))
            fault()
        for sender in senders:
            sender.join()
        self._start_again()
        try:
            self._house.until(lambda: self._open() == 0, SETTLES_S, 0.2)
        except TimeoutError:
            self.violations.append(f"run {number}: I4: {self._open()} requests did not settle within {SETTLES_S:.0f} s")
        self._check(number)

    def _plan(self, number: int) -> list[Callable[[], None]]:
        faults: list[Callable[[], None]] = [self._kill_worker, self._freeze_worker]
        if number % 5 == 1:
            faults.append(self._wipe_valkey)
        if number % 6 == 2:
            faults.append(self._kill_postgres)
        if number % 9 == 3:
            faults.append(self._kill_clerk)
        self.random.shuffle(faults)
        return faults

    def _batch(self, number: int) -> list[dict[str, Any]]:
        """Requests of one run: some twice, some with changed findings under the same accession number, some poison; in any order."""
        batch: list[dict[str, Any]] = []
        for _ in range(self.random.randint(6, 10)):
            self._count += 1
            one = {"accession": f"C-{self._count}", "findings": f"{FINDINGS}患者{CANARY}。"}
            one["priority"] = self.random.choice(["stat", "urgent", "routine"])
            batch += [one] * self.random.choice([1, 1, 2, 3])
            if self.random.random() < 0.3:
                batch.append({**one, "findings": f"{FINDINGS}肝内见囊性灶，患者{CANARY}。"})
        if number % 4 == 0:
            self._count += 1
            poison = self.random.choice([SEGFAULT, DIES, LOOPS])
            batch.append({"accession": f"C-{self._count}", "findings": f"{FINDINGS}{poison}，患者{CANARY}。"})
        self.random.shuffle(batch)
        return batch

    def _send(self, batch: list[dict[str, Any]]) -> None:
        """Sends each until it is acknowledged, as a reporting system does; every acknowledgement goes into the ledger."""
        door = Door(self._house)
        for one in batch:
            until = time.monotonic() + SETTLES_S
            while time.monotonic() < until:
                try:
                    status, answer = door.send(**one)
                except (OSError, http.client.HTTPException):
                    status, answer = 0, {}
                if status in (200, 202):
                    with self._writing:
                        self._ledger.write(json.dumps({"id": answer["id"], "accession": one["accession"]}) + "\n")
                        self._ledger.flush()
                        os.fsync(self._ledger.fileno())
                    break
                time.sleep(0.3)
            else:
                self.violations.append(f"{one['accession']} was not acknowledged within {SETTLES_S:.0f} s")

    # faults

    def _living_worker(self) -> subprocess.Popen[bytes]:
        """One to harm; a poison or an earlier fault may have ended some already, or all."""
        living = [worker for worker in self._workers if worker.poll() is None]
        if not living:
            self._start_again()
        return self.random.choice(living or self._workers)

    def _kill_worker(self) -> None:
        self._living_worker().kill()

    def _freeze_worker(self) -> None:
        """Stops a worker for longer than its lease, then lets it go on with what it held."""
        victim = self._living_worker()
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(self.random.uniform(2.5, 4.0))
            os.kill(victim.pid, signal.SIGCONT)

    def _kill_clerk(self) -> None:
        self._clerk.kill()

    def _wipe_valkey(self) -> None:
        (server,) = [each for each in embedded.status(self._house.home) if each.name == "valkey"]
        if server.pid is not None:
            os.kill(server.pid, signal.SIGKILL)
        for path in ((self._house.home / "servers").resolve() / "valkey").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        time.sleep(self.random.uniform(0.0, 1.5))
        embedded.ensure(self._house.home)

    def _kill_postgres(self) -> None:
        (server,) = [each for each in embedded.status(self._house.home) if each.name == "postgres"]
        if server.pid is not None:
            os.kill(server.pid, self.random.choice([signal.SIGKILL, signal.SIGQUIT, signal.SIGINT]))
        time.sleep(self.random.uniform(0.5, 2.0))
        embedded.ensure(self._house.home)

    def _start_again(self) -> None:
        """What `valuer up` does: whatever died is started again."""
        for at, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self._workers[at] = self._again(worker, "worker", "0.15")
        if self._clerk.poll() is not None:
            self._clerk = self._again(self._clerk, "clerk")
        if self._door.poll() is not None:
            self._door = self._again(self._door, "worklist")

    def _again(self, dead: subprocess.Popen[bytes], *command: str) -> subprocess.Popen[bytes]:
        self._house.stop(dead)
        return self._house.start(*command)[0]

    # judging

    def _open(self) -> int:
        self._start_again()  # a poison may have killed a worker
        query = "SELECT count(*) FROM draft_requests WHERE state IN ('queued', 'drafting')"
        try:
            return int(self._rows(query)[0][0])
        except psycopg.OperationalError:
            return -1

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._house.reading() as connection:
            return list(connection.execute(query).fetchall())

    def _check(self, number: int) -> None:
        def violated(invariant: str, rows: list[tuple[Any, ...]]) -> None:
            if rows:
                self.violations.append(f"run {number}: {invariant}: {len(rows)}, such as {rows[0]}")

        known = {str(row[0]) for row in self._rows("SELECT id FROM draft_requests")}
        lines = Path(self._ledger.name).read_text("utf-8").splitlines()
        lost = [(line,) for line in lines if json.loads(line)["id"] not in known]
        violated("I1 an acknowledged request is lost", lost)
        for invariant, query in INVARIANTS.items():
            violated(invariant, self._rows(query))
        violated("I6 a text in Valkey", self._canaries_in_valkey())
        logs = [(path.name,) for path in self._house.home.glob("*.log") if CANARY in path.read_text("utf-8", "replace")]
        violated("I6 a text in a log", logs)
        engine = db.connect(self._house.servers.database_url, pool_size=1)
        with db.transaction(engine) as session:
            verdict = audit.verify(session)
        engine.dispose()
        violated("I7 the audit chain is broken", [] if verdict.broken_at is None else [(verdict.broken_at,)])

    def _canaries_in_valkey(self) -> list[tuple[Any, ...]]:
        path = self._house.servers.broker_url.removeprefix("redis+socket://")
        with redis.Redis(unix_socket_path=path) as client:
            return [(key,) for key in client.scan_iter() if any(_tells(raw) for raw in _values(client, key))]


def _values(client: Any, key: bytes) -> list[bytes]:
    """Everything that a key of Valkey holds, as it lies there."""
    kind = client.type(key)
    if kind == b"list":
        return list(client.lrange(key, 0, -1))
    if kind == b"hash":
        return [part for pair in client.hgetall(key).items() for part in pair]
    return [client.dump(key) or b""]


def _tells(raw: bytes) -> bool:
    """Whether the canary stands in it: as text, as JSON's escapes, or in the base64 of a Celery message."""
    spelt = [raw]
    for part in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", raw):
        with suppress(binascii.Error):
            spelt.append(base64.b64decode(part + b"=" * (-len(part) % 4)))
    marks = (CANARY.encode(), json.dumps(CANARY).strip('"').encode())
    return any(mark in each for each in spelt for mark in marks)


INVARIANTS = {
    "I2 more than one visible draft": "SELECT request_id FROM drafts WHERE visible GROUP BY request_id HAVING count(*) > 1",
    "I2 more than one current request of the same findings": (
        "SELECT accession FROM draft_requests WHERE state NOT IN ('superseded', 'cancelled')"
        " GROUP BY institution, accession, findings_hash HAVING count(*) > 1"
    ),
    "I2 a drafted request without its draft, or a draft beside another answer": (
        "SELECT r.id, r.state FROM draft_requests r WHERE r.state IN ('drafted', 'withheld', 'needs_human')"
        " AND (r.state = 'drafted') <> EXISTS (SELECT FROM drafts d WHERE d.request_id = r.id AND d.visible AND d.version = r.draft_version)"
    ),
    "I3 a draft written after its request was superseded": (
        "SELECT d.id FROM drafts d JOIN draft_requests r ON r.id = d.request_id"
        " WHERE r.state = 'superseded' AND d.created_at > r.closed_at"
    ),
    "I3 several unclosed requests of one accession number": (
        "SELECT accession FROM draft_requests WHERE state NOT IN ('signed', 'superseded', 'cancelled') GROUP BY accession HAVING count(*) > 1"
    ),
    "I4 a lease that outlived its request": (
        "SELECT id, state FROM draft_requests WHERE lease IS NOT NULL AND state <> 'drafting'"
    ),
    "I4 given up without three crashes": (
        "SELECT r.id FROM draft_requests r WHERE r.state = 'needs_human'"
        " AND (SELECT count(*) FROM attempts a WHERE a.request_id = r.id AND a.state IN ('crashed', 'discarded')) < 3"
    ),
    "I5 something final without a person": "SELECT id::text FROM sign_offs UNION ALL SELECT id::text FROM draft_requests WHERE state = 'signed'",
}


def chaos(runs: int, seed: int, ledger: Path, told: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """`runs` runs; what was done and what was violated."""
    under_test = Chaos(seed, ledger)
    try:
        for number in range(runs):
            began = time.monotonic()
            under_test.run(number)
            told(
                f"run {number + 1} of {runs}: {time.monotonic() - began:.1f} s, {len(under_test.violations)} violations"
            )
        requests = len(ledger.read_text("utf-8").splitlines())
    finally:
        under_test.close()
    done = {name: under_test.faults.count(name) for name in sorted(set(under_test.faults))}
    return {
        "runs": runs,
        "faults": len(under_test.faults),
        "violations": len(under_test.violations),
        "seed": seed,
        "acknowledged": requests,
        "done": done,
        "violated": under_test.violations[:20],
    }


def main() -> None:
    """Runs and prints one JSON object on the last line."""
    parser = argparse.ArgumentParser(prog="bench/chaos.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 runs")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--runs", type=int, default=50, help="Runs; each kills a worker and freezes one (default 50)")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the schedule (default 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="valuer-ledger-") as folder:
        told: Callable[[str], None] = (lambda _: None) if options.json else (lambda line: print(line, flush=True))
        result = chaos(5 if options.quick else options.runs, options.seed, Path(folder) / "ledger.jsonl", told)
    print(json.dumps(result, ensure_ascii=False))
    if result["violations"]:
        raise SystemExit(1)
