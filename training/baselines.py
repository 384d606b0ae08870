"""What a model has to be better than: texts for a case that no model wrote. They stand in every table beside the models.

Copying the findings, the leading sentences, and the impression of the most similar training report. No engine, no database.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from clinical.text import sentences
from training.dataset import Case

Baseline = Callable[[Case], str]

_BUCKETS = 1 << 18
_QUERY_GRAMS = 96
"""Rarest character pairs of a query that candidates are looked up by; the others are in nearly every report."""


def copied(case: Case) -> str:
    """The findings, all of them."""
    return case.input.findings


def leading(case: Case, budget: int) -> str:
    """The leading sentences of the findings, at least one, up to `budget` characters."""
    text = case.input.findings
    end = 0
    for _, stop in sentences(text):
        if end and stop > budget:
            break
        end = stop
    return text[:end].strip()


class Nearest:
    """The impression of the training report whose findings are most alike: cosine over character pairs weighted by rarity (TF-IDF, binary
    counts). Holds one posting per report and pair: 250,000 reports take about 400 MB."""

    def __init__(self, taught: Iterable[Case]) -> None:
        grams: list[NDArray[np.int32]] = []
        self._signed: list[str] = []
        for case in taught:
            grams.append(_grams(case.input.findings))
            self._signed.append(case.signed)
        reports = np.repeat(np.arange(len(grams), dtype=np.int32), [len(each) for each in grams])
        flat = np.concatenate(grams) if grams else np.empty(0, np.int32)
        order = np.argsort(flat, kind="stable")
        self._postings = reports[order]
        frequency = np.bincount(flat, minlength=_BUCKETS)
        self._starts = np.concatenate(([0], np.cumsum(frequency)))
        self._rarity = np.log((1 + len(grams)) / (1 + frequency)) + 1e-9
        squared = np.bincount(reports, weights=self._rarity[flat] ** 2, minlength=len(grams))
        self._norms = np.sqrt(np.maximum(squared, 1e-12))

    def __call__(self, case: Case) -> str:
        """Its impression; the first of equally near ones, and nothing where no training report shares a pair of characters."""
        mine = _grams(case.input.findings)
        known = mine[self._starts[mine + 1] > self._starts[mine]]
        if not len(known):
            return ""
        rarest = known[np.argsort(-self._rarity[known], kind="stable")][:_QUERY_GRAMS]
        found = [self._postings[self._starts[gram] : self._starts[gram + 1]] for gram in rarest]
        weights = np.repeat(self._rarity[rarest] ** 2, [len(each) for each in found])
        likeness = np.bincount(np.concatenate(found), weights=weights, minlength=len(self._signed)) / self._norms
        return self._signed[int(likeness.argmax())]


def baselines(taught: Sequence[Case]) -> dict[str, Baseline]:
    """Every baseline by name; `taught` is the training part that the models learnt from."""
    budget = int(median(len(case.signed) for case in taught)) if taught else 0
    return {"copy": copied, "lead": partial(leading, budget=budget), "nearest": Nearest(taught)}


def _grams(text: str) -> NDArray[np.int32]:
    """Distinct buckets of the text's character pairs, blanks left out, ascending."""
    points = np.array([ord(character) for character in text if not character.isspace()], dtype=np.int64)
    if len(points) < 2:
        return np.empty(0, np.int32)
    return np.unique((points[:-1] * 1_000_003 + points[1:] * 8191) % _BUCKETS).astype(np.int32)
