"""What the checks find and what they raise in vain: `python bench/planted.py [--quick] [--json] [--show KIND]`.

Errors of every kind that `sandbox.errors` can plant go into impressions that are right, 200 of each and wording (60 with `--quick`), over six
house styles. Beside them stand the clean pairs themselves (3,000 and more) and true rewritings of them. A planted error is found when an
issue of its kind, amber or louder, is raised; the clean original of each is checked too, which gives precision. `ppv` is the precision if 1
draft in 100 had the error. `seen` and `unseen` are the generator's two sets of wordings; the vocabulary was written without the second.

These are figures of generated text. They are no clinical accuracy: see docs/checks.md.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from clinical.checks import check
from clinical.facts import Reading
from clinical.issues import Issue, Kind, Pair, Severity
from sandbox.errors import KINDS, inject
from sandbox.facts import PretendReport, Wording
from sandbox.generator import generate
from sandbox.paraphrase import KINDS as REWRITINGS
from sandbox.paraphrase import paraphrase
from sandbox.statements import parts

LOUD = frozenset({Severity.WITHHOLD, Severity.RED, Severity.AMBER})
CLEAN, PLANTED, REWRITTEN = 3_000, 200, 1_000
PREVALENCE = 0.01
EXPECTED = {kind: Kind("number" if kind == "unit" else kind) for kind in KINDS}


@dataclass(slots=True)
class Tally:
    """Issues over a set of pairs that hold no error; `kinds` counts pairs, not issues."""

    pairs: int = 0
    red: int = 0
    loud: int = 0
    withheld: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    read: float = 0.0
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, pair: Pair) -> None:
        issues = loud(pair)
        self.pairs += 1
        self.loud += bool(issues)
        self.red += any(issue.severity is Severity.RED for issue in issues)
        self.withheld += any(issue.severity is Severity.WITHHOLD for issue in issues)
        self.kinds.update({issue.kind.value for issue in issues})
        for issue in issues:
            self.examples[issue.kind.value].append(shown(pair, issue))

    def per_hundred(self) -> dict[str, object]:
        """Pairs in 100 with at least one issue: red, red or amber or withheld, withheld, and by kind."""
        share = 100 / max(1, self.pairs)
        return {
            "pairs": self.pairs,
            "loud": round(self.loud * share, 2),
            "red": round(self.red * share, 2),
            "withheld": round(self.withheld * share, 2),
            "kinds": {kind: round(count * share, 2) for kind, count in self.kinds.most_common()},
        }


@dataclass(slots=True)
class Found:
    """One kind of planted error: how many, how many found, and how many of their clean originals raise the same kind."""

    planted: int = 0
    found: int = 0
    somehow: int = 0
    false: int = 0
    missed: list[str] = field(default_factory=list)

    def rates(self) -> dict[str, float]:
        """Recall, recall of any loud issue, precision against as many clean originals, and precision at 1 % prevalence."""
        recall, false = self.found / max(1, self.planted), self.false / max(1, self.planted)
        share = PREVALENCE * recall
        return {
            "planted": self.planted,
            "recall": round(recall, 3),
            "any": round(self.somehow / max(1, self.planted), 3),
            "precision": round(recall / (recall + false), 3) if recall else 0.0,
            "ppv": round(share / (share + (1 - PREVALENCE) * false), 3) if recall else 0.0,
        }


def pair_of(report: PretendReport, impression: str) -> Pair:
    """The pair as the worker would check it: with the examination's data and a generation that ended by itself."""
    return Pair(
        report.findings,
        impression,
        sex=report.sex,
        modality=report.modality,
        systems=report.systems,
        language=report.language,
        finish="stop",
    )


def loud(pair: Pair) -> list[Issue]:
    return [issue for issue in check(pair) if issue.severity in LOUD]


def shown(pair: Pair, issue: Issue) -> str:
    return f"{issue.rule}: {issue.message}\n    F {pair.findings!r}\n    I {pair.impression!r}"


def reports(wording: Wording, seed: int) -> Iterator[PretendReport]:
    """Reports of six houses in turn, without end, whose impression is known to the letter, so right, and has no title, as a draft has none."""
    while True:
        houses = [
            generate("balanced", scale=0.004, seed=seed, houses=(house,), wording=wording) for house in range(1, 7)
        ]
        for row in zip(*houses, strict=False):
            yield from (one for one in row if (known := parts(one)) is not None and not known.before)
        seed += 1


def clean(wording: Wording, count: int, seed: int) -> Tally:
    """`count` pairs that hold no error."""
    tally = Tally()
    for report in reports(wording, seed):
        if tally.pairs == count:
            return tally
        tally.add(pair_of(report, report.impression))
    return tally


def rewritten(wording: Wording, count: int, seed: int) -> Tally:
    """`count` impressions said in other words that are as true."""
    tally = Tally()
    for report in reports(wording, seed):
        for text in filter(None, map(partial(paraphrase, report, seed=seed), REWRITINGS)):
            if tally.pairs == count:
                return tally
            tally.add(pair_of(report, text))
    return tally


def planted(wording: Wording, count: int, seed: int) -> dict[str, Found]:
    """`count` errors of each kind."""
    found = {kind: Found() for kind in KINDS}
    for report in reports(wording, seed):
        wanted = [kind for kind in KINDS if found[kind].planted < count]
        if not wanted:
            return found
        right = {issue.kind for issue in loud(pair_of(report, report.impression))}
        for kind in wanted:
            error = inject(report, kind, seed=seed)
            if error is None:
                continue
            pair = pair_of(report, error.impression)
            kinds = {issue.kind for issue in loud(pair)}
            one = found[kind]
            one.planted += 1
            one.found += EXPECTED[kind] in kinds
            one.somehow += bool(kinds - right) or EXPECTED[kind] in kinds
            one.false += EXPECTED[kind] in right
            if EXPECTED[kind] not in kinds:
                one.missed.append(
                    f"{error.detail}: {error.was!r} -> {error.now!r}\n    F {pair.findings!r}\n    I {pair.impression!r}"
                )
    return found


def coverage(wording: Wording, count: int, seed: int) -> dict[str, float]:
    """Share of the statements that yield a fact or a structure called normal, mean over `count` reports."""
    rows = [report for report, _ in zip(reports(wording, seed), range(count), strict=False)]
    return {
        "findings": round(sum(Reading(one.findings, one.language).coverage for one in rows) / count, 3),
        "impression": round(sum(Reading(one.impression, one.language).coverage for one in rows) / count, 3),
    }


def measure(wording: Wording, scale: float, seed: int) -> dict[str, object]:
    """Everything about one set of wordings."""
    errors = planted(wording, round(PLANTED * scale), seed)
    total = sum(one.planted for one in errors.values())
    return {
        "clean": clean(wording, round(CLEAN * scale), seed + 1000).per_hundred(),
        "rewritten": rewritten(wording, round(REWRITTEN * scale), seed + 2000).per_hundred(),
        "kinds": {kind: one.rates() for kind, one in errors.items()},
        "recall": round(sum(one.found for one in errors.values()) / total, 3),
        "coverage": coverage(wording, round(300 * scale), seed + 3000),
    }


def main() -> None:
    """Measures and prints one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three tenths of the pairs")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other reports")
    parser.add_argument("--show", metavar="KIND", help="print what is missed and what is raised in vain (seen wording)")
    options = parser.parse_args()
    scale = 0.3 if options.quick else 1.0
    if options.show:
        _show(options.show, scale, options.seed)
        return
    began = time.process_time()
    result: dict[str, object] = {name: measure(name, scale, options.seed) for name in ("seen", "unseen")}
    result["cpu_s"] = round(time.process_time() - began, 1)
    if not options.json:
        for name in ("seen", "unseen"):
            _print(name, result[name])
    print(json.dumps(result))


def _show(kind: str, scale: float, seed: int) -> None:
    if kind in EXPECTED:
        for text in planted("seen", round(PLANTED * scale), seed)[kind].missed:
            print("MISSED", text)
    for tally in (
        clean("seen", round(CLEAN * scale), seed + 1000),
        rewritten("seen", round(REWRITTEN * scale), seed + 2000),
    ):
        for text in tally.examples[kind]:
            print("IN VAIN", text)


def _print(name: str, result: object) -> None:
    assert isinstance(result, dict)
    print(f"\n{name} wording: recall {result['recall']} over all kinds; statements read {result['coverage']}")
    print(f"{'kind':14}{'planted':>9}{'recall':>9}{'any':>7}{'precision':>11}{'PPV at 1 %':>12}")
    for kind, row in result["kinds"].items():
        print(
            f"{kind:14}{row['planted']:9}{row['recall']:9.3f}{row['any']:7.3f}{row['precision']:11.3f}{row['ppv']:12.3f}"
        )
    for what in ("clean", "rewritten"):
        row = result[what]
        kinds = ", ".join(f"{kind} {value}" for kind, value in row["kinds"].items())
        print(
            f"{what}: {row['pairs']} pairs; in 100: {row['loud']} flagged, {row['red']} red, {row['withheld']} withheld ({kinds})"
        )


if __name__ == "__main__":
    main()
