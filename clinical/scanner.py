"""Goes through one text from left to right and makes facts of it, with what a reader keeps in mind: side, place, negation, doubt.

Dictionaries and scope rules over the masked matching copy, linear in its length. What the facts are compared with is not
its concern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from clinical.cues import ADVICE, HEDGES_BEFORE, REASON, REST, SENTENCE, counted
from clinical.frames import BOTH, Fact, Place
from clinical.levels import Level
from clinical.lexicon import lesions, meant_elsewhere, organ_of, structures
from clinical.measures import Measure
from clinical.placing import SIDES, belongs, own_places, places_of, refers_back, specific
from clinical.tokens import Token

if TYPE_CHECKING:
    from clinical.facts import Reading

_NOWHERE: frozenset[str] = frozenset()
_FOLLOWS_ON = re.compile(r"^(?:其|内|病灶|大小|较大|最大|大者|局部|周围|邻近|增强|边缘|边界|部分|直径|以|余)")
_WORST = re.compile(r"位于|大者|为著|为主|为甚|为重|稍著|较著|较多|较大|偏多|明显|显著|较重|最大|最明显")
_RECENT = 8  # findings of a sentence among which one is looked for that a later clause speaks of


@dataclass(slots=True)
class _Clause:
    start: int
    end: int
    advice: bool
    places: list[Place] = field(default_factory=list)
    normal: bool = False
    facts: int = 0


_SIZES = {
    "大": "big",
    "增大": "big",
    "肿大": "big",
    "粗": "big",
    "厚": "wall_thick",
    "增厚": "wall_thick",
    "宽": "dilation",
    "扩张": "dilation",
}


def _absent_size(word: str, places: list[Place]) -> str | None:
    """The finding that `不大`, `未增厚`, `不宽` denies of these places."""
    lesion = _SIZES.get(word[1:])
    if lesion == "big" and any("node" in place.path for place in places):
        return "lymph_enlarged"
    return lesion


class Scanner:
    """Goes through a text once, from left to right, with what a reader keeps in mind: the side, the place, the negation."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.text = reading.masked
        self.facts: list[Fact] = []
        self.places: list[tuple[Place, bool]] = []
        self._ends: dict[int, int] = {}  # where the word of each fact ends
        self._levels: tuple[frozenset[str], frozenset[str]] = (
            _NOWHERE,
            _NOWHERE,
        )  # of the places that a clause inherits
        self._worst: list[Place] = []  # where a finding of this sentence is said to be worst

    def run(self) -> tuple[list[Fact], list[tuple[Place, bool]]]:
        row = self.reading.tokens
        index = 0
        last: list[Place] = []
        at = 0
        for match in [*SENTENCE.finditer(self.text), None]:
            end = len(self.text) if match is None else match.start()
            mine: list[Token] = []
            border = end if match is None else match.end()  # 肺癌?; the question mark is a hedge of what it ends
            while index < len(row) and row[index].start < border:
                mine.append(row[index])
                index += 1
            if mine:
                last = self._sentence(at, end, mine, last)
            at = end if match is None else match.end()
        self._one_limb()
        return self.facts, self.places

    def _one_limb(self) -> None:
        """`右膝关节在位……髌上囊内见液体`: a report on one limb says its side once, and means it throughout."""
        sides: dict[str, frozenset[str]] = {}
        for place, _ in self.places:
            if place.path.startswith("limb/") and place.path.count("/") == 1 and place.sides:
                sides[place.path] = sides.get(place.path, _NOWHERE) | place.sides

        def sided(place: Place) -> Place:
            side = sides.get(organ_of(place.path), _NOWHERE)
            if place.sides or len(side) != 1 or not structures()[place.path].paired:
                return place
            return Place(place.path, side, place.start, place.end)

        if sides:
            self.places = [(sided(place), normal) for place, normal in self.places]
            for index, fact in enumerate(self.facts):
                self._change(index, places=tuple(map(sided, fact.places)))

    # -- one sentence

    def _sentence(self, start: int, end: int, tokens: list[Token], before: list[Place]) -> list[Place]:
        clauses: list[list[Token]] = [[]]
        borders = [start]
        for token in tokens:
            if token.kind == "comma":
                clauses.append([])
                borders.append(token.end)
            else:
                clauses[-1].append(token)
        borders.append(end + 1)
        follows = _FOLLOWS_ON.match(self.text[start:end].lstrip()) is not None
        carried: list[Place] = list(before) if follows else []
        if not follows:
            self._levels = (_NOWHERE, _NOWHERE)
        pending: list[Place] = []
        side: tuple[str, int, int] | None = None
        sentence_first = len(self.facts)
        self._worst = []
        rest = False
        reason = not self.reading.chinese and REASON.match(self.text[start:end].lstrip(" \x00\n-•*")) is not None
        for number, mine in enumerate(clauses):
            close = borders[number + 1] - 1
            begin = close - len(self.text[borders[number] : close].lstrip(" \x00"))
            said = self.text[begin:close].strip(" \x00")
            clause = _Clause(begin, close, reason or ADVICE.search(said) is not None)
            placed, side = places_of(self.text, mine, side)
            if len(placed) > 1:  # 【肺】左肺下叶见…: a heading is the place of what has none of its own
                placed = {
                    i: place for i, place in placed.items() if self.text[place.end : place.end + 1] != "】"
                } or placed
            own = list(placed.values())
            rest = REST.match(said) is not None or (rest and not own)
            made = len(self.facts)
            clause.normal = any(t.kind == "normal" for t in mine)
            carried, pending = self._clause(clause, mine, placed, carried, pending, sentence_first)
            if rest:
                for index in range(made, len(self.facts)):
                    self._change(index, rest=True)
            negative = clause.normal or any(t.kind == "neg" for t in mine)
            found = any(f.polarity for f in self.facts[len(self.facts) - clause.facts :]) if clause.facts else False
            self.places.extend((place, negative and not found) for place in own)
        return carried

    def _clause(
        self,
        clause: _Clause,
        tokens: list[Token],
        placed: dict[int, Place],
        carried: list[Place],
        pending: list[Place],
        first: int,
    ) -> tuple[list[Place], list[Place]]:
        """Makes the facts of one clause; returns the places that the next clause inherits and those still without a finding."""
        group: list[Place] = list(pending)
        fresh_group = bool(pending)
        current: list[Place] = []
        negated = False
        hedge = 4
        count: str | None = None
        named = [t.value for t in tokens if t.kind == "level" and isinstance(t.value, Level)]
        level_names = frozenset().union(*(level.names for level in named)) if named else _NOWHERE
        loose = frozenset().union(*(level.loose for level in named)) if named else _NOWHERE
        inherited = not placed and not named and bool(carried)
        if inherited:
            level_names, loose = self._levels
        else:
            self._levels = (level_names, loose)
        made: list[int] = []
        for index, token in enumerate(tokens):
            if index in placed:
                if refers_back(self.text, placed[index], carried or (group if fresh_group else [])):
                    continue
                if not fresh_group:
                    group = []
                    fresh_group = True
                group.append(placed[index])
            elif token.kind == "neg":
                negated = True
                if made and token.start - self.facts_end(made[-1]) <= 1:
                    self._only_named(made, token)  # 软组织影未见增厚
            elif token.kind == "pos":
                negated = False
            elif token.kind in ("h1", "h2", "h3"):
                hedge = self._hedge(token, made, hedge)
            elif token.kind in ("one", "many", "n"):
                count = token.kind if token.kind != "n" else counted(str(token.value))
                last = all(t.kind not in ("lesion", "place") for t in tokens[index + 1 :])
                if made and last and token.start - self.facts_end(made[-1]) <= 2:
                    self._change(made[-1], count=count)  # 淋巴结7枚
                    count = None
            elif token.kind == "post":
                if made and token.start - self.facts_end(made[-1]) <= 3:
                    self._change(made[-1], polarity=False, certainty=0)
                elif group and fresh_group and (absent := _absent_size(str(token.value), group)):
                    nodes = tuple(place for place in group if "node" in place.path)
                    self._state(clause, token, absent, nodes or tuple(group), level_names, loose)
            elif token.kind == "normal":
                self._only_named(made, token)
            elif token.kind == "lesion":
                lesion = str(token.value)
                if lesion == "abnormality" and negated:
                    self._only_named(made, token)
                if self.text.startswith(("术后", "切除术后"), token.end):
                    continue  # 主动脉夹层术后: what was operated on is no longer a finding
                if fresh_group and group:
                    current = specific(self.text, group)
                    fresh_group = False
                elif not current:
                    current = carried
                if lesions()[lesion].only and not belongs(lesion, current or self._last_places(made, first)):
                    lesion = meant_elsewhere().get(self.text[token.start : token.end], "")
                    if not lesion:
                        continue
                if lesion == "big" and any("node" in place.path for place in current):
                    lesion = "lymph_enlarged"  # 淋巴结，部分稍大
                places = own_places(lesion, token, current, tokens[:index])
                certainty = 0 if negated and hedge != 1 else hedge
                span, whole = self.reading.span(token.start, token.end), self.reading.span(clause.start, clause.end)
                made.append(len(self.facts))
                self.facts.append(
                    Fact(
                        lesion,
                        tuple(places),
                        level_names,
                        loose,
                        (),
                        count,
                        certainty > 0,
                        certainty,
                        clause.advice,
                        span,
                        whole,
                        emphasis=bool(current) and current is self._worst,
                    )
                )
                self._ends[len(self.facts) - 1] = token.end
                clause.facts += 1
                count = None
            elif token.kind == "measure" and isinstance(token.value, Measure):
                target = made[-1] if made else len(self.facts) - 1 if len(self.facts) > first else None
                if target is not None:
                    self._change(target, sizes=(*self.facts[target].sizes, token.value))
        behind = group if fresh_group else []
        if made and behind and not any(self.facts[i].places for i in made):
            for i in made:  # 见结节影位于右肺上叶: the place comes last
                self._change(i, places=tuple(behind), levels=level_names)
            return behind, []
        if not made and behind:
            text = self.text[clause.start : clause.end]
            target = self._pointed_at(first, text, behind)
            if target is not None:
                self._worst = behind
                whole = self.reading.span(clause.start, clause.end)
                span = self.reading.span(behind[0].start, behind[-1].end)
                self.facts.append(
                    replace(
                        self.facts[target],
                        places=tuple(behind),
                        levels=level_names or self.facts[target].levels,
                        loose_levels=loose,
                        sizes=(),
                        count=None,
                        span=span,
                        clause=whole,
                        emphasis=True,
                    )
                )
                self._ends[len(self.facts) - 1] = behind[-1].end
                clause.facts += 1
                return behind, []
            if clause.normal or any(t.kind in ("neg", "post") for t in tokens):
                self._absent(clause, tokens, behind)
                return behind, []
            rest = self.text[behind[-1].end : clause.end].strip(" \x00()、")
            return behind, behind if len(rest) <= 2 else []  # 右肺上叶，右肺下叶见结节: a place that still waits
        if not made and not behind:
            self._worse_side(clause, tokens, first)
        return (behind or current or carried), []

    def _worse_side(self, clause: _Clause, tokens: list[Token], first: int) -> None:
        """`双侧胸腔积液，右侧为著`: a side alone, of what the sentence has on both."""
        said = [token for token in tokens if token.kind == "side"]
        if len(said) != 1 or len(self.facts) == first or not _WORST.search(self.text[clause.start : clause.end]):
            return
        told = self.facts[-1]
        where = (said[0].start, said[0].end)
        places = tuple(Place(p.path, SIDES[str(said[0].value)], *where, where) for p in told.places if p.sides == BOTH)
        if told.polarity and places:
            span, whole = self.reading.span(*where), self.reading.span(clause.start, clause.end)
            self.facts.append(
                replace(told, places=places, sizes=(), count=None, span=span, clause=whole, emphasis=True)
            )
            self._ends[len(self.facts) - 1] = said[0].end
            clause.facts += 1

    def _only_named(self, made: list[int], token: Token) -> None:
        """`椎旁软组织影未见异常`: the shadow is a structure, and no finding."""
        last = made[-1] if made else None
        if last is not None and self.facts[last].severity == 0 and token.start - self.facts_end(last) <= 5:
            self._change(last, polarity=False, certainty=0)

    def _state(
        self,
        clause: _Clause,
        token: Token,
        lesion: str,
        places: tuple[Place, ...],
        names: frozenset[str],
        loose: frozenset[str],
    ) -> None:
        """`淋巴结不大`: the adjective denies a finding that has a name of its own."""
        span = self.reading.span(token.start, token.end)
        whole = self.reading.span(clause.start, clause.end)
        self.facts.append(Fact(lesion, places, names, loose, (), None, False, 0, clause.advice, span, whole))
        self._ends[len(self.facts) - 1] = token.end
        clause.facts += 1

    def facts_end(self, index: int) -> int:
        return self._ends[index]

    def _change(self, index: int, **new: Any) -> None:
        self.facts[index] = replace(self.facts[index], **new)

    def _hedge(self, token: Token, made: list[int], hedge: int) -> int:
        """A hedge behind a finding weakens it (and those joined to it); one before weakens what follows in the clause."""
        value = {"h1": 1, "h2": 2, "h3": 3}[token.kind]
        word = str(token.value)
        if self.text.startswith(("为", "是", "系"), token.end) and value > 1:
            return value  # 结节可能为转移: the doubt is about what comes
        before = word.startswith(HEDGES_BEFORE)
        if made and not (before and token.start - self.facts_end(made[-1]) > 0 and value > 1):
            for index in reversed(made):
                if self.facts[index].certainty in (0, 2, 4) and self.facts[index].polarity:
                    self._change(index, certainty=min(self.facts[index].certainty, value) if value < 3 else value)
                if index != made[0] and self.text[self.facts_end(index - 1) : self.facts_end(index)].count("伴"):
                    break
            return value if before else 4
        return value

    def _last_places(self, made: list[int], first: int) -> list[Place]:
        """Where the last finding of the clause is, or else that of the sentence: 右侧气胸，压缩约30%."""
        last = made[-1] if made else len(self.facts) - 1
        return list(self.facts[last].places) if last >= first else []

    def _pointed_at(self, first: int, clause: str, places: list[Place]) -> int | None:
        """The finding of this sentence that `其中最大者位于右肺中叶` or `以右肺为著` speaks of: of those in that organ the gravest, then the last."""
        if len(self.facts) == first or not _WORST.search(clause):
            return None
        organs = {organ_of(place.path) for place in places}
        here = [
            index
            for index in range(max(first, len(self.facts) - _RECENT), len(self.facts))
            if self.facts[index].polarity and organs & {organ_of(place.path) for place in self.facts[index].places}
        ]
        return max(here, key=lambda index: (self.facts[index].severity, index), default=len(self.facts) - 1)

    def _absent(self, clause: _Clause, tokens: list[Token], places: list[Place]) -> None:
        """`胆囊未见`: the negation comes last and names nothing, so the organ itself is missing."""
        last = tokens[-1]
        if (
            last.kind == "neg"
            and str(last.value) in ("未见", "未显示", "未及")
            and self.text[last.end : clause.end].strip(" \x00") in ("", "显示")
        ):
            span = self.reading.span(places[0].start, last.end)
            whole = self.reading.span(clause.start, clause.end)
            self.facts.append(
                Fact("postoperative", tuple(places), _NOWHERE, _NOWHERE, (), None, True, 4, False, span, whole)
            )
            self._ends[len(self.facts) - 1] = last.end
            clause.facts += 1
