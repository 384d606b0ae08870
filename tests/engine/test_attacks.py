"""Adapters that are not what was registered, on a real engine behind the real gate: each is refused, the reason is kept, the old one serves on."""

import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from safetensors.torch import load_file, save_file
from sqlmodel import select

from core import db, registry
from core.errors import Broken
from core.serving import Serving
from core.tables import AuditEvent
from tests.builders import institution
from tests.engine.conftest import LIMITS, AdapterMaker, seal, tiny_llama, tiny_tokenizer
from tests.engine.test_engines import PROMPTS, WAIT, results
from worker.engine.cb import ContinuousBatching
from worker.engine.protocol import Generation, Job, Options
from worker.engine.weights import digest
from worker.swap import Swap

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
OPTIONS = [Options(max_new_tokens=8)] * 5
Harm = Callable[[Path], object]
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers for it
    ),
    pytest.mark.timeout(900),  # many swaps, on a machine that may have others to serve
    pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning"),
]


@dataclass
class Hospital:
    """An engine that serves `old`, the gate before it, and the database that both stand on."""

    engine: ContinuousBatching
    swap: Swap
    database: sa.Engine
    base: Path
    words: list[str]

    def promote(self, folder: Path, to: str = "*") -> None:
        with db.transaction(self.database) as session:
            registry.promote(session, registry.register(session, folder).id, "test", to)

    def texts(self) -> list[str]:
        return [one.text for one in results(self.engine, OPTIONS)]

    def reasons(self) -> list[str]:
        """Why versions were refused, by the audit trail."""
        with db.transaction(self.database) as session:
            events = session.exec(select(AuditEvent).where(AuditEvent.action == "model.refused"))
            return [event.detail["reason"] for event in events]


@pytest.fixture
def hospital(database: sa.Engine, tiny_base: Path, make_adapter: AdapterMaker) -> Iterator[Hospital]:
    with db.transaction(database) as session:
        institution(session)
        institution(session, "south")
    tokenizer = tiny_tokenizer()
    engine = ContinuousBatching(tiny_llama(len(tokenizer)), tokenizer, LIMITS, base=tiny_base)
    swap = Swap(engine, database, digest(tiny_base), Serving("nf4+adapter", "clinical", 128))
    made = Hospital(engine, swap, database, tiny_base, [])
    made.promote(make_adapter(tiny_base, "old"))
    swap.look()
    made.words += made.texts()
    yield made
    assert engine.adapter != "old" or made.texts() == made.words  # whatever was tried, it writes as before
    engine.drain(5)


def harm_is_found(hospital: Hospital, reason: str) -> None:
    """The promoted version does not serve, for this reason; the old one does, for the same institutions."""
    known = len(hospital.reasons())
    hospital.swap.look()
    hospital.swap.look()
    assert hospital.engine.adapter == "old"
    assert sorted(hospital.swap.served()) == ["north", "south"]
    (told,) = hospital.reasons()[known:]
    assert reason in told


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def boundaries(path: Path) -> list[int]:
    """Lengths at which a safetensors file ends early: in the length of its header, in the header, after it, and in and after every tensor."""
    content = path.read_bytes()
    header = 8 + int(struct.unpack("<Q", content[:8])[0])
    tensors = json.loads(content[8:header])
    ends = {header + at for name, told in tensors.items() if name != "__metadata__" for at in told["data_offsets"]}
    inside = {at + 1 for at in ends}
    return sorted(at for at in {0, 1, 7, 8, 9, header - 1, header, *ends, *inside} if at < len(content))


def test_a_file_that_ends_early_anywhere_is_refused_by_its_hash_and_with_a_hash_of_its_own_by_its_form(
    hospital: Hospital, make_adapter: AdapterMaker
) -> None:
    next_one = make_adapter(hospital.base, "next", seed=1)
    weights = next_one / WEIGHTS
    whole, lengths = weights.read_bytes(), boundaries(weights)
    assert len(lengths) > 15
    for length in lengths:
        weights.write_bytes(whole[:length])
        with pytest.raises(Broken, match="changed or cut"):
            hospital.promote(next_one)
        seal(next_one, hospital.base, "next")
        with pytest.raises(Broken, match="not a whole safetensors file"):
            hospital.engine.swap(next_one)
        weights.write_bytes(whole)
        seal(next_one, hospital.base, "next")
    assert hospital.engine.adapter == "old"


def test_one_bit_that_flips_on_the_disk_is_found(hospital: Hospital, make_adapter: AdapterMaker) -> None:
    for number, (name, part) in enumerate(
        (name, part) for name in (WEIGHTS, CONFIG) for part in (0.0, 0.01, 0.5, 0.999)
    ):
        next_one = make_adapter(hospital.base, f"next-{number}", seed=1)
        hospital.promote(next_one)
        flip(next_one / name, int(part * (next_one / name).stat().st_size * 8))
        harm_is_found(hospital, f"{name} is truncated or changed")


def _one_bit_of_the_manifest(folder: Path) -> None:
    flip(folder / MANIFEST, 8 * 40)


def _a_manifest_that_fits_the_harm(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file({name: tensor * 2 for name, tensor in state.items()}, folder / WEIGHTS)
    _seal_again(folder)


def _no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _a_link_to_elsewhere(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}.safetensors"
    (folder / WEIGHTS).rename(outside)
    (folder / WEIGHTS).symlink_to(outside)


def _nothing_is_left(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


CHANGED: list[tuple[Harm, str]] = [
    (_one_bit_of_the_manifest, "not the one that was registered"),
    (_a_manifest_that_fits_the_harm, "not the one that was registered"),
    (_no_manifest, "has no manifest.json"),
    (_a_link_to_elsewhere, "is a link"),
    (_nothing_is_left, "has no manifest.json"),
]


def test_what_changes_after_it_was_registered_is_refused(hospital: Hospital, make_adapter: AdapterMaker) -> None:
    for number, (harm, reason) in enumerate(CHANGED):
        next_one = make_adapter(hospital.base, f"next-{number}", seed=1)
        hospital.promote(next_one)
        harm(next_one)
        harm_is_found(hospital, reason)


def _change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def _change_settings(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps({**settings, **changes}), "utf-8")


def _with_one(value: float) -> Harm:
    def harm(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        state[min(state)].view(-1)[0] = value
        save_file(state, folder / WEIGHTS)

    return harm


def _whole_numbers(folder: Path) -> None:
    _change_weights(folder, lambda state: {name: tensor.to(torch.int32) for name, tensor in state.items()})


def _one_more_tensor(folder: Path) -> None:
    _change_weights(folder, lambda state: {**state, "base_model.model.lm_head.weight": torch.zeros(2, 2)})


def _one_tensor_less(folder: Path) -> None:
    _change_weights(folder, lambda state: {name: state[name] for name in sorted(state)[1:]})


def _a_pickle(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    torch.save(state, folder / WEIGHTS)


FAULTS: list[tuple[Harm, str]] = [
    (_with_one(float("nan")), "not a number"),
    (_with_one(float("inf")), "not a number"),
    (_whole_numbers, "not a number"),
    (_one_more_tensor, "does not fit the base model"),
    (_one_tensor_less, "does not fit the base model"),
    (_a_pickle, "not a whole safetensors file"),
    (lambda folder: _change_settings(folder, r=2), "rank or alpha"),
    (lambda folder: _change_settings(folder, lora_alpha=64), "rank or alpha"),
    (lambda folder: _change_settings(folder, use_dora=True), "not a plain LoRA adapter: use_dora"),
    (lambda folder: _change_settings(folder, alpha_pattern={"q_proj": 64}), "not a plain LoRA adapter: alpha_pattern"),
    (lambda folder: _change_settings(folder, modules_to_save=["lm_head"]), "not a plain LoRA adapter: modules_to_save"),
    (lambda folder: _change_settings(folder, init_lora_weights="pissa"), "not a plain LoRA adapter: init_lora_weights"),
    (lambda folder: _change_settings(folder, bias="all"), "not a plain LoRA adapter: bias"),
    (lambda folder: (folder / CONFIG).write_text("[1]", "utf-8"), "cannot be read"),
    (lambda folder: _change_manifest(folder, adapter={"r": 4, "alpha": 16}), "rank or alpha"),
    (lambda folder: _change_manifest(folder, golden=GOLDEN), "golden prompt"),
    (lambda folder: _change_manifest(folder, prompt={"template": "nobody's", "version": "0"}), "no prompt template"),
]
GOLDEN = {"prompt_tokens": [0, 4, 5], "first_tokens": [9, 9, 9, 9]}


def test_what_was_registered_with_its_fault_is_refused_when_it_is_to_serve(
    hospital: Hospital, make_adapter: AdapterMaker
) -> None:
    for number, (harm, reason) in enumerate(FAULTS):
        next_one = make_adapter(hospital.base, f"next-{number}", seed=1)
        harm(next_one)
        _seal_again(next_one)
        hospital.promote(next_one)
        harm_is_found(hospital, reason)


def _change_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}), "utf-8")


def _seal_again(folder: Path) -> None:
    """The manifest of before over the files of now: what a training run with a fault would leave."""
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    _change_manifest(folder, files=files)


def test_a_manifest_that_lacks_something_and_a_link_are_never_registered(
    hospital: Hospital, make_adapter: AdapterMaker
) -> None:
    for field in ("id", "base", "adapter", "weights", "prompt", "training", "scope", "files"):
        next_one = make_adapter(hospital.base, f"without {field}", seed=1)
        manifest = json.loads((next_one / MANIFEST).read_text("utf-8"))
        del manifest[field]
        (next_one / MANIFEST).write_text(json.dumps(manifest), "utf-8")
        with pytest.raises(Broken, match=f"lacks {field}"):
            hospital.promote(next_one)
    linked = make_adapter(hospital.base, "linked", seed=1)
    _a_link_to_elsewhere(linked)
    with pytest.raises(Broken, match="is a link"):
        hospital.promote(linked)


def test_twenty_swaps_under_eight_drafts_in_flight_fail_none_and_mix_none(
    hospital: Hospital, make_adapter: AdapterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two institutions pin different versions and a third version comes and goes; every text is that of the version it is told to be of."""
    monkeypatch.setattr("worker.swap.GRACE_S", 0.05)  # most drafts are caught in the middle
    folders = {"old": None, **{name: make_adapter(hospital.base, name, seed=seed) for seed, name in enumerate("ab", 1)}}
    alone: dict[str, list[str]] = {}
    for name in ("a", "b", "old"):
        folder = folders[name] or make_adapter(hospital.base, "copy of old")
        hospital.engine.swap(folder)
        alone[name] = [one.text for one in results(hospital.engine, [Options(max_new_tokens=24)] * 5)]
    assert len({tuple(texts) for texts in alone.values()}) == 3
    hospital.swap._version = None  # the engine was turned behind the gate's back
    hospital.swap.look()
    over = threading.Event()
    drafted: list[tuple[str, int, Generation]] = []

    def draft(place: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            job_id = f"{place}-{number}"
            with hospital.swap.admitted(job_id) as version:
                assert version is not None
                job = Job(f"{job_id}/0", PROMPTS[place % 5], Options(max_new_tokens=24))
                got = hospital.engine.submit(job).result(WAIT)
                if got.finish != "cancelled":
                    drafted.append((version.id, place % 5, got))

    with ThreadPoolExecutor(8) as places:
        working = [places.submit(draft, place) for place in range(8)]
        for number in range(20):
            name = "ab"[number % 2]
            folder = folders[name]
            assert folder is not None
            hospital.promote(folder)
            hospital.swap.look()
            assert hospital.engine.adapter == name
        over.set()
        for each in working:
            each.result(WAIT)
    assert len(drafted) > 20
    for version, prompt, got in drafted:
        assert got.adapter == version
        assert got.text == alone[version][prompt]
