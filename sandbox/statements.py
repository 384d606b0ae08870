"""An impression taken apart into its statements and put together again, after the facts that stand behind it.

Used to plant errors and to say the same in other words. Only an impression that is understood to the letter is taken apart.
"""

from dataclasses import dataclass

from sandbox.facts import Fact, PretendReport
from sandbox.houses import HOUSES, Numbering
from sandbox.script import traditional

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of an impression without its number, and the (first) fact that it tells."""

    words: str
    severity: int
    fact: Fact


@dataclass(frozen=True, slots=True)
class Parts:
    """An impression taken apart: what stands before the statements, they, and what stands after."""

    before: str
    statements: tuple[Statement, ...]
    after: str
    numbering: Numbering
    inner: str

    def text(self, statements: tuple[Statement, ...]) -> tuple[str, list[Span]]:
        """The impression with these statements, and where each of them stands."""
        major = [[one] for one in statements if one.severity > 1]
        minor = [one for one in statements if one.severity == 1]
        items = major + ([minor] if minor else [])
        text, spans = self.before, []
        for number, item in enumerate(items):
            if self.numbering.marks and (len(items) > 1 or self.numbering.single):
                text += self.numbering.marks[number]
            for position, one in enumerate(item):
                text += self.inner if position else ""
                spans.append((len(text), len(text) + len(one.words)))
                text += one.words
            text += self.numbering.between if number + 1 < len(items) else self.after
        return text, spans


def _translated(numbering: Numbering) -> Numbering:
    return Numbering(tuple(map(traditional, numbering.marks)), numbering.between, numbering.last, numbering.single)


def parts(report: PretendReport) -> Parts | None:
    """The statements of a report's impression, or None where blemishes, an incidental block or nothing at all stand in the way."""
    if report.noise or report.status == "addendum":
        return None
    house = HOUSES[report.house]
    numbering = house.numbering_mr if house.numbering_mr and report.modality == "MR" else house.numbering
    if house.language == "zh-Hant":
        numbering = _translated(numbering)
    told: dict[Span, Fact] = {}
    for fact in report.facts:
        if fact.impression_span:
            told.setdefault(fact.impression_span, fact)
    if not told:
        return None
    statements = tuple(
        Statement(report.impression[slice(*span)], fact.severity, fact) for span, fact in sorted(told.items())
    )
    first, last = min(told), max(told)
    before = report.impression[: first[0]]
    mark = numbering.marks[0] if numbering.marks else ""
    found = Parts(
        before.removesuffix(mark),
        statements,
        report.impression[last[1] :],
        numbering,
        ";" if house.half_width else "；",
    )
    # Only an impression that this reading explains to the letter is edited.
    return found if found.text(statements)[0] == report.impression else None
