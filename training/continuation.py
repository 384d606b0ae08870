"""Training on from an earlier version in place of a fresh adapter: whether that version fits, and what it has read already.

Nothing is trained here. A fresh adapter on all eligible data is the rule; this is the exception, asked for by name and recorded.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlmodel import Session

from clinical.text import findings_hash
from core import registry
from core.errors import Refused
from core.tables import Dataset, ModelVersion
from training import dataset
from training.profiles import Profile
from worker import prompt
from worker.engine import rows


def fit(
    session: Session, version: str, recipe: Profile, base_digest: str, layers: Collection[str] | None = None
) -> ModelVersion:
    """The version, when `recipe` can train on from it on this base. `layers` are those that the recipe would put LoRA on, once the base is known
    well enough to say.

    Raises:
        NotFound: there is no such version.
        Conflict, Broken: its files were removed or are not those that were registered.
        Refused: its base, prompt or shape is another, or it was made in steps that cannot be gone on with.
    """
    row = registry.get(session, version)
    registry.require_usable(row)
    why = _misfit(row, recipe, base_digest, layers)
    if why is not None:
        raise Refused(f"Training cannot go on from {version}: {why}.", code="cannot_continue")
    return row


def _misfit(row: ModelVersion, recipe: Profile, base_digest: str, layers: Collection[str] | None) -> str | None:
    manifest: dict[str, Any] = row.manifest
    adapter = manifest["adapter"]
    if adapter is None:
        return "it has no adapter"
    if recipe.embedding_examples or recipe.selection_examples:
        return (
            f"the profile {recipe.name} trains embeddings and chooses the template first, on a base without an adapter"
        )
    if rows.FILE in manifest["files"]:
        return "it has trained embeddings"
    if row.base_digest != base_digest:
        return f"it was trained on another base ({row.base_digest[:12]}, not {base_digest[:12]})"
    if manifest["prompt"] != {"template": recipe.template, "version": prompt.version(recipe.template)}:
        return f"its prompt is {manifest['prompt']['version']}, not {prompt.version(recipe.template)}"
    if (adapter["r"], adapter["alpha"]) != (recipe.rank, recipe.alpha):
        return f"its adapter has rank {adapter['r']} and alpha {adapter['alpha']}, not {recipe.rank} and {recipe.alpha}"
    if layers is not None and sorted(layers) != sorted(adapter["target_modules"]):
        return f"its adapter lies on {', '.join(adapter['target_modules'])}, not on {', '.join(sorted(layers))}"
    return None


def apart(session: Session, row: ModelVersion, data: Dataset) -> None:
    """Sees to it that nothing that `data` is tested on was learned by the version, or by one that it was itself continued from.

    Raises:
        Refused: something was, or nobody can tell because a training set is gone.
    """
    tested = {findings_hash(case.input.findings) for case in dataset.read(Path(data.path), dataset.TEST)}
    before: str | None = row.id
    while before is not None:
        manifest = registry.get(session, before).manifest
        read = session.get(Dataset, manifest.get("dataset", {}).get("id"))
        if read is None:
            raise Refused(
                f"The training set of {before} is not here, so nobody can tell what it has read.", code="unknown_past"
            )
        dataset.verify(Path(read.path), read.digest)
        known = sum(
            findings_hash(case.input.findings) in tested for case in dataset.read(Path(read.path), dataset.TRAIN)
        )
        if known:
            raise Refused(
                f"{before} has learned {known} reports that {data.id} is tested on; only a fresh adapter can be measured by it.",
                code="tested_was_learned",
            )
        before = manifest["training"].get("continued_from")
