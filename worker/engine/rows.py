"""Trained embeddings that travel with an adapter: the rows of the embedding that differ from the base's, put in and taken out again.

A model whose output layer is tied to its embedding gets them on both ends. Knows a model and a file; which adapter brings the file is
`adapter`'s business.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import Broken

FILE = "embeddings.safetensors"
"""`ids` (rows,) int64 and `rows` (rows, hidden) bfloat16."""
_KEPT = "_valuer_rows_of_the_base"


def write(before: torch.Tensor, after: torch.Tensor, file: Path) -> int:
    """Stores the rows of `after` that differ from `before`, both (vocabulary, hidden); returns how many."""
    ids = (before != after).any(dim=1).nonzero()[:, 0]
    save_file({"ids": ids.cpu(), "rows": after[ids].to(torch.bfloat16).cpu().contiguous()}, file)
    file.chmod(0o644)  # safetensors makes it private, and the worker may be another user
    return int(ids.numel())


@torch.no_grad()
def put(model: Any, file: Path) -> None:
    """Puts the rows into the model's embedding and keeps the base's own for `take_out`. Raises Broken where they do not fit."""
    embedding = model.get_input_embeddings()
    try:
        stored = load_file(file, device=str(embedding.weight.device))
        ids, rows = stored["ids"], stored["rows"]
    except (OSError, KeyError, SafetensorError):
        raise Broken(f"{file.name} is not a file of trained embeddings") from None
    vocabulary, hidden = embedding.weight.shape
    known = (
        ids.dtype == torch.int64
        and ids.unique().numel() == ids.numel()
        and bool(((ids >= 0) & (ids < vocabulary)).all())
    )
    if not known or rows.shape != (ids.numel(), hidden) or not bool(rows.isfinite().all()):
        raise Broken(f"{file.name} does not fit the base model's embedding")
    setattr(embedding, _KEPT, (ids, embedding.weight[ids].clone()))
    embedding.weight[ids] = rows.to(embedding.weight.dtype)


@torch.no_grad()
def take_out(model: Any) -> None:
    """The base's own rows again, where trained ones were put in."""
    embedding = model.get_input_embeddings()
    kept = vars(embedding).pop(_KEPT, None)
    if kept is not None:
        ids, rows = kept
        embedding.weight[ids] = rows
