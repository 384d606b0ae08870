"""Practical utility (the paper's Table 8): how large a model is, what its training took, how fast it drafts. Measured values only."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.measured import Measured

_NF4_BITS = 4.127
"""Bits a number of NF4 with double quantisation (Dettmers et al. 2023): 4, and 0.127 for the constants of its blocks of 64."""


@dataclass(frozen=True, slots=True)
class Utility:
    """One model. None is unknown and is printed as a dash. Seconds are from the submission of a report to its checked draft, with
    `in_flight` reports at once; `tokens_per_s` is of the whole evaluation, `joules` of one report by the card's own counter."""

    subject: str
    parameters: int | None = None
    trained: int | None = None
    adapter_bytes: int | None = None
    weights: str | None = None
    training_reports: int | None = None
    training_hours: float | None = None
    training_device: str | None = None
    seconds_p50: float | None = None
    seconds_p95: float | None = None
    in_flight: int | None = None
    tokens_per_s: float | None = None
    peak_bytes: int | None = None
    device: str | None = None
    joules: float | None = None


def parameters(folder: Path) -> int | None:
    """Numbers in all safetensors of a folder, read from their headers; None when there are none."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(_numbers, files)) if files else None


def quantised_bytes(folder: Path) -> int | None:
    """What the weights of a base take in NF4 with double quantisation, norms, embeddings and output layer in 16 bits; None without safetensors.

    Training needs more: the adapter with its optimiser (16 bytes a number) and activations, which depend on the length of a row.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    total = 0.0
    for file in files:
        for name, shape in _shapes(file).items():
            quantised = len(shape) == 2 and not any(part in name for part in ("embed", "lm_head", "wte"))
            total += math.prod(shape) * (_NF4_BITS / 8 if quantised else 2)
    return round(total)


def utility(
    subject: str,
    measured: Sequence[Measured],
    *,
    result: Mapping[str, Any],
    base: Path | None = None,
    adapter: Path | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Utility:
    """`result` is the evaluation's: weights, in_flight, device, what training.assessment counts, and peak_bytes; `manifest` the version's."""
    told: Mapping[str, Any] = {} if manifest is None else manifest["training"]
    drafted = [one.seconds for one in measured]
    quantiles = np.quantile(drafted, (0.5, 0.95)) if drafted else (math.nan, math.nan)
    tokens, elapsed = result.get("elapsed_tokens"), result.get("elapsed_s")
    seconds = told.get("seconds")
    return Utility(
        subject,
        parameters=None if base is None else parameters(base),
        trained=None if adapter is None else parameters(adapter),
        adapter_bytes=None if adapter is None else sum(file.stat().st_size for file in adapter.glob("*.safetensors")),
        weights=result.get("weights"),
        training_reports=None if manifest is None else manifest.get("dataset", {}).get("reports"),
        training_hours=None if seconds is None else seconds / 3600,
        training_device=told.get("device"),
        seconds_p50=float(quantiles[0]) if drafted else None,
        seconds_p95=float(quantiles[1]) if drafted else None,
        in_flight=result.get("in_flight"),
        tokens_per_s=tokens / elapsed if tokens and elapsed else None,
        peak_bytes=result.get("peak_bytes"),
        device=result.get("device"),
        joules=result["joules"] / result["joules_reports"] if result.get("joules_reports") else None,
    )


def _numbers(file: Path) -> int:
    return sum(math.prod(shape) for shape in _shapes(file).values())


def _shapes(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
