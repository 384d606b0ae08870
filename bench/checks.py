"""Checks and scores, timed on one core: `python bench/checks.py [--quick] [--json]`.

`mean_ms` and `p95_ms` are of `clinical.checks.check` per pair of generated findings (about 400 characters) and impression; `score_speedup` is
the time of rouge-chinese called in a loop over the time of our ROUGE on the same jieba words; `score_max_diff` is the largest difference of
the three F1.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator

from rouge_chinese import Rouge

from clinical.checks import check
from clinical.issues import Pair
from clinical.score import rouge, tokens
from sandbox.generator import generate


def pairs(count: int) -> list[Pair]:
    """Generated pairs of all houses, findings lengthened to about 400 characters by a second report of the same house."""
    made: list[Pair] = []
    before = ""
    for report in generate("balanced", scale=count / 332_673 * 2, seed=11):
        if report.impression:
            findings = (report.findings + before)[:400]
            made.append(Pair(findings, report.impression, sex=report.sex, modality=report.modality))
            before = report.findings
        if len(made) == count:
            break
    return made


def drafts(made: list[Pair]) -> Iterator[tuple[str, str]]:
    """Each impression against its own findings and against the next one's impression."""
    for one, other in zip(made, [*made[1:], made[0]], strict=True):
        yield one.findings, one.impression
        yield other.impression, one.impression


def main() -> None:
    """Measures and prints one JSON object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 pairs instead of 5,000")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    options = parser.parse_args()
    made = pairs(1_000 if options.quick else 5_000)
    check(made[0])
    took: list[float] = []
    for pair in made:
        began = time.process_time()
        check(pair)
        took.append(1000 * (time.process_time() - began))
    words = [(" ".join(tokens(draft)), " ".join(tokens(signed))) for draft, signed in drafts(made)]
    words = [(draft, signed) for draft, signed in words if draft.strip() and signed.strip()]
    began = time.process_time()
    theirs = [Rouge().get_scores(draft, signed)[0] for draft, signed in words]
    library_s = time.process_time() - began
    began = time.process_time()
    ours = [rouge(draft.split(" "), signed.split(" ")) for draft, signed in words]
    ours_s = time.process_time() - began
    names = ("rouge-1", "rouge-2", "rouge-l")
    difference = max(
        abs(their[name]["f"] - mine[index])
        for their, mine in zip(theirs, ours, strict=True)
        for index, name in enumerate(names)
    )
    result = {
        "mean_ms": round(statistics.mean(took), 3),
        "p95_ms": round(sorted(took)[int(0.95 * len(took))], 3),
        "score_speedup": round(library_s / ours_s, 1),
        "score_max_diff": difference,
        "pairs": len(made),
        "scored": len(words),
    }
    if not options.json:
        print(f"check: {result['mean_ms']} ms mean, {result['p95_ms']} ms p95 over {len(made)} pairs")
        print(
            f"ROUGE: {result['score_speedup']} times as fast as rouge-chinese on {len(words)} pairs, difference {difference:.1e}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
