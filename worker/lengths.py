"""How long a house's texts are in a base model's tokens, and how many of them fit what a worker takes. Counts only; keeps no text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from worker.prompt import Prompt

TOGETHER = 256
SERVED_CHARACTERS = 2000
"""Findings up to this many characters are to be served by every base that is used."""


@dataclass(slots=True)
class Lengths:
    """Of each text: characters of the findings, tokens of the findings, of the whole prompt, and of the impression (None: there is none)."""

    characters: list[int] = field(default_factory=list)
    findings: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    impressions: list[int | None] = field(default_factory=list)

    def add(self, tokenizer: Any, texts: Iterable[tuple[str, Prompt, str | None]]) -> int:
        """Count findings, prompts and impressions; returns how many there were."""
        before, waiting = len(self.prompts), iter(texts)
        while some := list(islice(waiting, TOGETHER)):
            self.characters += [len(findings) for findings, _, _ in some]
            self.findings += _counts(tokenizer, [findings for findings, _, _ in some], special=False)
            self.prompts += _counts(tokenizer, [prompt.text for _, prompt, _ in some], special=True)
            written = iter(_counts(tokenizer, [text for _, _, text in some if text], special=False))
            self.impressions += [next(written) + 1 if text else None for _, _, text in some]  # 1: the end of sequence
        return len(self.prompts) - before

    def summary(self, prompt_tokens: int, new_tokens: int, context: int) -> dict[str, Any]:
        """Tokens per character, quantiles of each length, and the shares that fit: prompts of `prompt_tokens`, together with `new_tokens`
        within `context`, and impressions of `new_tokens`."""
        longest = min(prompt_tokens, context - new_tokens)
        per_character = sum(self.findings) / max(1, sum(self.characters))
        overhead = max((prompt - own for prompt, own in zip(self.prompts, self.findings, strict=True)), default=0)
        impressions = [length for length in self.impressions if length is not None]
        return {
            "texts": len(self.prompts),
            "tokens_per_character": round(per_character, 3),
            "findings_characters": quantiles(self.characters),
            "findings_tokens": quantiles(self.findings),
            "prompt_tokens": quantiles(self.prompts),
            "impression_tokens": quantiles(impressions),
            "longest_prompt": longest,
            "prompts_that_fit": share(length <= longest for length in self.prompts),
            "impressions_that_fit": share(length <= new_tokens for length in impressions),
            "served_characters": int((longest - overhead) / per_character) if per_character else 0,
            "histogram": histogram(self.prompts),
        }


_PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def quantiles(lengths: Sequence[int]) -> dict[str, int] | None:
    """Median, 95th and 99th percentile and the longest; None of nothing."""
    ordered = sorted(lengths)
    if not ordered:
        return None
    at = {name: ordered[min(len(ordered) - 1, int(part * len(ordered)))] for name, part in _PARTS.items()}
    return {**at, "max": ordered[-1]}


def share(facts: Iterable[bool]) -> float | None:
    """The part of them that is true; None of nothing."""
    counted = list(facts)
    return round(sum(counted) / len(counted), 4) if counted else None


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """How many lengths up to each power of two from 64 on."""
    made: dict[str, int] = {}
    for length in sorted(lengths):
        edge = 64
        while edge < length:
            edge *= 2
        made[str(edge)] = made.get(str(edge), 0) + 1
    return made


def _counts(tokenizer: Any, texts: list[str], *, special: bool) -> list[int]:
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=special, split_special_tokens=True)["input_ids"]
    return [len(ids) for ids in encoded]
