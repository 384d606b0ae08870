"""Going on from a version: what fits, what is refused, and that nothing it has learned is tested on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlmodel import Session

from core import registry
from core.errors import Conflict, Refused
from core.tables import Dataset, ModelVersion
from tests import builders
from tests.training import planted
from tests.training.test_dataset import report
from training import artefact, continuation, eligible
from training.policy import Policy
from training.profiles import profile
from training.qlora import add_lora, trainable
from worker.engine import rows, weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers for it
SMOKE = profile("smoke")


def learned(session: Session, base: Path, home: Path, data: Dataset) -> ModelVersion:
    """A registered version whose LoRA is no fresh one: B is not zero."""
    model, _ = weights.load(base, None, device="cpu", training=True)
    model = add_lora(model, SMOKE)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.01)
    staged = home / "staged"
    artefact.write_weights(model, staged, SMOKE, str(base))
    origin = artefact.Origin(str(base), weights.digest(base), {"id": data.id}, [], sandbox_only=True)
    artefact.seal(staged, "before", SMOKE, origin, training={}, metrics={})
    return registry.register(session, artefact.publish(staged, home / "models" / "before"))


@pytest.fixture
def data(session: Session, home: Path) -> Dataset:
    builders.institution(session, "north", role="train")
    builders.institution(session, "south", role="test")
    report(session, 1)
    report(session, 2)
    report(session, 3, institution="south")
    return eligible.build(session, home, Policy())


def test_a_version_is_gone_on_from_by_the_same_recipe_on_the_same_base_only(
    session: Session, tiny_base: Path, home: Path, data: Dataset
) -> None:
    row = learned(session, tiny_base, home, data)
    layers = row.manifest["adapter"]["target_modules"]

    def why(name: str = "smoke", **changes: Any) -> str:
        digest, wanted = changes.pop("digest", row.base_digest), changes.pop("layers", layers)
        with pytest.raises(Refused) as caught:
            continuation.fit(session, row.id, profile(name, **changes), digest, wanted)
        return caught.value.message

    assert continuation.fit(session, row.id, SMOKE, weights.digest(tiny_base), layers) is row
    assert "trained on another base" in why(digest="0" * 64)
    assert "its prompt is brief-" in why(template="house")
    assert "its adapter has rank 8 and alpha 16, not 4 and 16" in why(rank=4)
    assert "its adapter lies on" in why(layers=["v_proj"])
    assert "trains embeddings" in why("paper")
    sound = row.manifest
    row.manifest = {**sound, "files": {**sound["files"], rows.FILE: "0"}}
    assert "it has trained embeddings" in why()
    row.manifest = {**sound, "adapter": None}
    assert "it has no adapter" in why()
    row.manifest = sound
    row.collected_at = row.created_at
    with pytest.raises(Conflict, match="were removed"):
        continuation.fit(session, row.id, SMOKE, row.base_digest)


def test_what_is_tested_on_was_learned_by_nobody_in_the_line(session: Session, home: Path, data: Dataset) -> None:
    old, newer = planted.version(session, home, "old"), planted.version(session, home, "newer")
    old.manifest = {**old.manifest, "dataset": {"id": data.id}}
    newer.manifest = {**newer.manifest, "dataset": {"id": data.id}, "training": {"continued_from": "old"}}
    continuation.apart(session, newer, data)
    builders.institution(session, "north", role="test")  # what it has learned is tested on now
    builders.institution(session, "south", role="train")
    turned = eligible.build(session, home, Policy())
    with pytest.raises(Refused, match="newer has learned 2 reports that"):
        continuation.apart(session, newer, turned)
    newer.manifest = {**newer.manifest, "dataset": {"id": turned.id}}
    with pytest.raises(Refused, match="old has learned 2 reports that"):
        continuation.apart(session, newer, turned)
    old.manifest = {**old.manifest, "dataset": {"id": "gone"}}
    with pytest.raises(Refused, match="nobody can tell what it has read"):
        continuation.apart(session, newer, turned)
