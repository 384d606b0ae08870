"""What a draft rests on, for the API and the page. Links only: how a sentence and a finding are told to belong together is `clinical.evidence`."""

from functools import lru_cache
from pathlib import Path

from clinical.evidence import Evidence, Sentence, Standing, Told, evidence
from clinical.issues import Pair
from core import vocabulary
from core.tables import DraftRequest
from worklist.marks import Link


def pair_of(row: DraftRequest, impression: str, home: Path) -> Pair:
    """A request's findings and an impression of them, with what is known of the examination and the words of its institution."""
    return Pair(
        row.findings,
        impression,
        sex=row.sex,
        modality=row.modality,
        systems=tuple(row.systems),
        prior=row.prior_impression,
        language=row.language,
        words=vocabulary.of(home, row.institution).words,
    )


@lru_cache(maxsize=256)
def evidence_of(pair: Pair) -> Evidence:
    """The links of a pair; the same case is looked at several times. A few milliseconds; seconds for pages of the same sentence."""
    return evidence(pair)


def letters(found: Evidence) -> dict[Sentence, str]:
    """a, b, c … for the sentences that have a place in the findings, in their order; z is followed by aa."""
    named: dict[Sentence, str] = {}
    for number, one in enumerate(sentence for sentence in found.sentences if sentence.findings):
        first, last = divmod(number, 26)
        named[one] = ("" if not first else chr(96 + first)) + chr(97 + last)
    return named


def links_in_impression(found: Evidence) -> list[Link]:
    """Each sentence under its letter; one that nothing in the findings stands behind under a question mark."""
    named = letters(found)
    shown = {Standing.SUPPORTED: "", Standing.UNSUPPORTED: "?"}
    return [Link(*one.span, named.get(one, shown[one.standing])) for one in found.sentences if one.standing in shown]


def links_in_findings(found: Evidence) -> list[Link]:
    """The clauses behind each sentence under its letter; findings that the impression leaves out under a number of their own."""
    behind = [Link(*span, letter) for one, letter in letters(found).items() for span in one.findings]
    return behind + [Link(*one.span, f"!{number}") for number, one in enumerate(untold(found), 1)]


def untold(found: Evidence) -> list[Told]:
    """Positive findings that the impression leaves out, the gravest first."""
    return [one for one in found.findings if one.omitted]
