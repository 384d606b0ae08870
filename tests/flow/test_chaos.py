"""A short run of the seeded faults of bench/chaos.py, with every invariant checked from outside after each."""

import base64
import json
from pathlib import Path

import pytest

from bench.ward import chaos

pytestmark = pytest.mark.timeout(
    600
)  # processes of ours start again and again; on a quiet machine it takes less than a minute


def test_killed_and_frozen_processes_wiped_brokers_and_poison_violate_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    result = chaos.chaos(runs=4, seed=7, ledger=ledger)
    assert result["violated"] == []
    assert {"wipe_valkey", "kill_postgres"} <= set(result["done"])
    assert result["acknowledged"] == len(ledger.read_text().splitlines()) >= 24


def test_the_canary_is_found_however_it_is_spelt() -> None:
    escaped = json.dumps({"findings": chaos.CANARY}).encode()
    for raw in (chaos.CANARY.encode(), escaped, b'{"body": "' + base64.b64encode(escaped) + b'"}'):
        assert chaos._tells(raw)
    assert not chaos._tells(b'{"body": "' + base64.b64encode(b'[["01a201ee-8348"], {}, {}]') + b'"}')
