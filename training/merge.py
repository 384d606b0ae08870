"""An adapter merged into its base in full precision (bf16), as a derived artefact: a model directory that other servers can load.

The base is dequantised first and the adapter merged then, which is the model that the adapter was trained in; merging into other weights,
or quantising the result again, gives another model (design note on serving, section 4). The adapter stays the artefact of record.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import Broken
from worker.engine import weights

DERIVED = "derived.json"


def merge(base: Path, adapter: Path, target: Path) -> dict[str, Any]:
    """Writes the merged model, its tokenizer and `derived.json`, last, to `target`; returns what that says.

    Takes the memory of the base in bf16 (13 GB for a 7B model) and needs no card. An unfinished earlier attempt is replaced.

    Raises:
        Broken: the target is there already, or base and adapter are not intact or do not fit each other.
    """
    if (target / DERIVED).exists():
        raise Broken(f"{target.name} is there already; remove the folder to merge again.")
    manifest = json.loads((adapter / "manifest.json").read_text("utf-8"))
    model, tokenizer = weights.load(base, adapter, weights="bf16-merged", device="cpu")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    told = {
        "version": manifest["id"],
        "base": manifest["base"],
        "files": manifest["files"],
        "weights": "bf16-merged",
        "digest": weights.digest(partial),
        "note": "Derived from the version of this name. Serve it in bf16, after an evaluation in this form; never quantise it again.",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (partial / DERIVED).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(target)
    return told
