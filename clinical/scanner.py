"""Goes through one text from left to right and makes facts of it, with what a reader keeps in mind: side, place, negation, doubt.

Dictionaries and scope rules over the masked matching copy, linear in its length. What the facts are compared with is not
its concern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from clinical.frames import BOTH, Fact, Place
from clinical.lexicon import NOT_A_STRUCTURE, inside, lesion_gaps, lesion_terms, lesions, structure_terms, structures
from clinical.measures import Level, Measure

if TYPE_CHECKING:
    from clinical.facts import Reading

_NOWHERE: frozenset[str] = frozenset()
_SIDES = {"L": frozenset("L"), "R": frozenset("R"), "B": BOTH}
_COUNT_WORDS = {
    "两": "2",
    "二": "2",
    "三": "3",
    "四": "4",
    "五": "5",
    "六": "6",
    "七": "7",
    "八": "8",
    "九": "9",
    "十": "10",
}

_CUES = re.compile(
    r"(?P<skip>无强化|无肺?纹理|无壁|不均匀?|不清晰?|不规则|不稳|不全|不平整?|不齐|不光整|不光滑|不等|不对称|不连续|不整|不足|不良|不张|未闭|未降|未完全|无名|无菌"
    r"|不同|不典型|不完全|不一|不适|无法|较前|未破)"
    r"|(?P<h1>不(?:能|可|除)?(?:完全)?(?:除外|排除|外)|待(?:排除?|除外|查|定)|(?:以|进一步)?(?:除外|排除)|未除外"
    r"|not excluded|cannot be excluded|rule out|à exclure)"
    r"|(?P<h3>可能性?(?:较|稍)?大|首先考虑|倾向于?|高度怀疑|probabl[ey]|likely|suggestive of|vraisemblable\w*|probable)"
    r"|(?P<h2>可能性?|考虑为?|疑似?|可疑|拟诊|怀疑|\?|possibl[ey]|suspected|suspicious for|may represent|éventuel\w*|suspicion|évocat\w+)"
    r"|(?P<neg>未见|未及|未显示|未发现|未示|未探及|未提示|未触及|没有|无(?:明显|明确|确切)*|否认|不伴有?|未伴|未有"
    r"|(?<![a-z])(?:no|not|without|negative for|absence of|free of|pas de|sans|absence de|aucune?|ni)(?![a-z])"
    r"|(?<![a-z])(?:pas d'|absence d'|ni d'))"
    r"|(?P<post>不(?:大|厚|宽|明显|扩张|增厚|增宽|肿大|增大|高|粗)|未(?:增厚|扩张|受累|受侵|肿大|增大|增宽)|\(-\)|阴性|已?消失|已?吸收)"
    r"|(?P<pos>可见|另见|(?<![未所少常])见|(?<!不)伴有?|合并|并发|但|呈|(?<![a-z])(?:with|but|there is|there are|avec|mais)(?![a-z]))"
    r"|(?P<one>单发|孤立性?|单个|一[枚个]|1[枚个处]|(?<![a-z])(?:single|solitary|unique)(?![a-z]))"
    r"|(?P<many>多发|多个|多枚|多处|散在|数枚|数个|若干|弥漫|(?<![a-z])(?:multiple|several|scattered|multiples|plusieurs)(?![a-z]))"
    r"|(?P<n>[2-9]|1\d|[两二三四五六七八九十])[枚个处颗]"
    r"|(?P<normal>正常|未见(?:明显)?异常|光整|光滑|居中|对称|清晰|通畅|自然|在位|良好|如常|尚可|尚清|规整|协调|完整|存在|连续(?!性?中断)|均匀|(?<![a-z])(?:normal|unremarkable|normale?s?)(?![a-z]))"
)
_ADVICE = re.compile(
    r"^(?:附[见:])?(?:请|建议|必要时|随诊|随访|复查|结合临床|定期|进一步|治疗后|短期|\d*\x00*后?复查"
    r"|follow[- ]?up|recommend|clinical correlation|à corréler|contrôle)"
    r"|建议|请结合|请随诊|必要时|随诊|随访|定期复查|后复查|请临床|recommend|correlat"
)
_SIDE = re.compile(
    r"(?P<B>双侧|两侧|双边|左右两?侧|左右(?!径|缘|前后|优势)|左、右侧?|双(?=上|下|中|肺|肾|膝|髋|眼|耳|乳|侧|肩|踝|腕|肘|手|足|额|颞|顶|枕|基底|大脑|小脑|卵巢|附件|股|胫|髂|骶|颈|腮|颌|甲状|肋|胸|锁|跟|筛|上颌|蝶|半卵圆|放射冠|丘脑|输尿管|肾上腺|眶|鼻|扁桃|腹股沟|睾|精囊|丘|内听道|中耳|乳突)"
    r"|两(?=上|下|肺|肾|膝|髋|眼|耳|乳|额|颞|顶|枕|基底|大脑|小脑|胸|股|胫|髂|骶|颈|腮|颌|肋|锁|筛|上颌|肾上腺|中上|中下|半卵圆|放射冠|丘脑|输尿管|眶|鼻|腹股沟|睾|中耳|乳突|肩|踝|腕|肘)|(?<![a-z])(?:bilateral(?:ly)?|both|bilatéra\w+)(?![a-z]))"
    r"|(?P<L>左侧|左(?!右|位心|前斜|主干|前降|回旋|心[房室耳]|[房室]|冠|侧?卧)|(?<![a-z])left(?![a-z])|(?<![a-z])gauche|\(l\))"
    r"|(?P<R>右侧(?!优势)|右(?!位心|前斜|优势|冠|心[房室耳]?|[房室]|降|侧?优势|侧?卧)|(?<![a-z])right(?![a-z])|(?<![a-z])droite?|\(r\))"
)
SENTENCE = re.compile(r"[。;!?\n]+|(?<!\d)\.(?!\d)|\.(?=\s|$)")
_HEDGES_BEFORE = (
    "考虑", "疑", "可疑", "拟", "怀疑", "倾向", "首先", "高度", "不", "除外", "排除", "以", "进一步",
    "suspected", "suspicious", "suggestive", "rule", "probabl", "possibl", "likely", "may",
)  # fmt: skip
_COMMA = re.compile(r"[,:]")
_FOLLOWS_ON = re.compile(r"^(?:其|内|病灶|大小|较大|最大|大者|局部|周围|邻近|增强|边缘|边界|部分|直径|以|余)")
_LOBED = ("abdomen/liver", "neck/thyroid", "abdomen/portal_vein")
_JOINS = frozenset("、及和与或/以并,同 至")


@dataclass(slots=True)
class _Clause:
    start: int
    end: int
    advice: bool
    places: list[Place] = field(default_factory=list)
    normal: bool = False
    facts: int = 0


def only_advice(sentence: str) -> bool:
    """Whether every clause that says something is advice."""
    said = False
    for clause in _COMMA.split(sentence):
        plain = clause.strip(" \x00、")
        if not plain:
            continue
        if _ADVICE.search(plain) is None:
            if said and len(plain) <= 6 and not lesion_terms().find(plain):
                continue  # 请结合临床，必要时MR检查，随诊: a short tail without a finding belongs to the advice
            return False
        said = True
    return said


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    kind: str
    value: object


class _Cover:
    """Which characters a set of spans that do not overlap covers, and by which of them."""

    def __init__(self, length: int) -> None:
        self._by = [0] * length
        self._count = 0

    def add(self, start: int, end: int) -> None:
        self._count += 1
        self._by[start:end] = [self._count] * (end - start)

    def holds(self, start: int, end: int) -> bool:
        """Whether one span covers all of this one."""
        return self._by[start] != 0 and self._by[start] == self._by[end - 1]

    def touches(self, start: int, end: int) -> bool:
        return any(self._by[start:end])


def _named(plain: str) -> list[tuple[int, int, str]]:
    """Findings by name; a term with a gap (`密度*减低`) takes the place of the terms that it overlaps."""
    pattern, ids = lesion_gaps()
    gaps = [(match.start(), match.end(), ids[(match.lastindex or 1) - 1]) for match in pattern.finditer(plain)]
    taken = _Cover(len(plain))
    for start, end, _ in gaps:
        taken.add(start, end)
    whole = [each for each in lesion_terms().find(plain) if not taken.touches(each[0], each[1])]
    return sorted(whole + gaps)


class Scanner:
    """Goes through a text once, from left to right, with what a reader keeps in mind: the side, the place, the negation."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.text = reading.masked
        self.chinese = reading.language.startswith("zh")
        self.facts: list[Fact] = []
        self.places: list[tuple[Place, bool]] = []
        self._ends: dict[int, int] = {}  # where the word of each fact ends

    def run(self) -> tuple[list[Fact], list[tuple[Place, bool]]]:
        tokens = self._tokens()
        index = 0
        last: list[Place] = []
        at = 0
        for match in [*SENTENCE.finditer(self.text), None]:
            end = len(self.text) if match is None else match.start()
            mine: list[_Token] = []
            while index < len(tokens) and tokens[index].start < end:
                mine.append(tokens[index])
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
            side = sides.get("/".join(place.path.split("/")[:2]), _NOWHERE)
            if place.sides or len(side) != 1 or not structures()[place.path].paired:
                return place
            return Place(place.path, side, place.start, place.end)

        if sides:
            self.places = [(sided(place), normal) for place, normal in self.places]
            for index, fact in enumerate(self.facts):
                self._change(index, places=tuple(map(sided, fact.places)))

    def _tokens(self) -> list[_Token]:
        """Everything that means something, in order; a word inside a longer one of another kind is left out."""
        text = self.text
        tokens = [_Token(level.start, level.end, "level", level) for level in self.reading.levels]
        blank = list(text)
        for level in self.reading.levels:
            blank[level.start : level.end] = "\x00" * (level.end - level.start)
        plain = "".join(blank)
        named = _named(plain)
        in_finding, in_name = _Cover(len(plain)), _Cover(len(plain))
        for start, end, lesion in named:
            in_finding.add(start, end)
            tokens.append(_Token(start, end, "lesion", lesion))
        before = ""
        for start, end, path in structure_terms().find(plain):
            in_name.add(start, end)
            if path == "neck" and before.startswith(("abdomen", "limb")):
                continue  # 胆囊增大，颈部见结石: the neck of what was named before
            before = path
            vertebral = plain[start:end] == "附件" and "椎" in plain[max(0, start - 12) : start]
            generic = path == "limb" and in_finding.holds(start, end)  # 软组织影 names no place
            if path != NOT_A_STRUCTURE and not vertebral and not generic:
                tokens.append(_Token(start, end, "place", path))
        for match in _CUES.finditer(plain):
            kind = str(match.lastgroup)
            if kind != "skip" and not (kind == "post" and in_finding.holds(*match.span())):
                tokens.append(_Token(match.start(), match.end(), kind, match[0]))
        for match in _SIDE.finditer(text):
            if not in_name.holds(*match.span()):  # 左心房: the side is part of the name
                tokens.append(_Token(match.start(), match.end(), "side", match.lastgroup))
        tokens.extend(_Token(measure.start, measure.end, "measure", measure) for measure in self.reading.measures)
        if self.chinese:
            tokens.extend(_Token(m.start(), m.end(), "comma", m[0]) for m in _COMMA.finditer(plain))
        tokens.sort(key=lambda token: (token.start, token.end))
        return tokens

    # -- one sentence

    def _sentence(self, start: int, end: int, tokens: list[_Token], before: list[Place]) -> list[Place]:
        clauses: list[list[_Token]] = [[]]
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
        pending: list[Place] = []
        side: tuple[str, int, int] | None = None
        sentence_first = len(self.facts)
        for number, mine in enumerate(clauses):
            close = borders[number + 1] - 1
            begin = close - len(self.text[borders[number] : close].lstrip(" \x00"))
            clause = _Clause(begin, close, _ADVICE.search(self.text[begin:close].strip(" \x00")) is not None)
            placed, side = self._place(mine, side)
            own = list(placed.values())
            clause.normal = any(t.kind == "normal" for t in mine)
            carried, pending = self._clause(clause, mine, placed, carried, pending, sentence_first)
            negative = clause.normal or any(t.kind == "neg" for t in mine)
            found = any(f.polarity for f in self.facts[len(self.facts) - clause.facts :]) if clause.facts else False
            self.places.extend((place, negative and not found) for place in own)
        return carried

    def _place(
        self, tokens: list[_Token], side: tuple[str, int, int] | None
    ) -> tuple[dict[int, Place], tuple[str, int, int] | None]:
        """Places of one clause by the index of their token, and the side a following clause inherits."""
        placed: dict[int, Place] = {}
        known = structures()
        fresh: tuple[int, int] | None = None  # span of the side word right before
        for index, token in enumerate(tokens):
            if token.kind == "side":
                value = str(token.value)
                if (
                    side is not None
                    and fresh is not None
                    and fresh[1] <= token.start
                    and set(self.text[fresh[1] : token.start]) <= _JOINS
                ):
                    value = value if side[0] == value else "B"  # 左、右: both
                    fresh = (fresh[0], token.end)
                else:
                    fresh = (token.start, token.end)
                side = (value, *fresh)
                self._postfix(tokens, index, placed, value)
            elif token.kind in ("place", "level"):
                path = (
                    str(token.value)
                    if token.kind == "place"
                    else token.value.path
                    if isinstance(token.value, Level)
                    else None
                )
                if path is None:
                    continue
                structure = known[path]
                adjacent = (
                    fresh is not None
                    and token.start - fresh[1] <= 2
                    and not set(self.text[fresh[1] : token.start]) & _JOINS
                )
                sides = _NOWHERE
                said: tuple[int, int] | None = None
                if path.rpartition("/")[2] in ("left", "right") and path.split("/")[-2] in (
                    "liver",
                    "thyroid",
                    "portal_vein",
                ):
                    sides = _SIDES["L" if path.endswith("/left") else "R"]
                    said = (token.start, token.end)
                elif side is not None and (adjacent or structure.paired):
                    sides = _SIDES[side[0]]
                    said = (side[1], side[2])
                placed[index] = Place(path, sides, token.start, token.end, said)
        for index, place in placed.items():
            if (
                place.path in _LOBED
                and len(place.sides) == 1
                and place.said_side is not None
                and abs(place.said_side[0] - place.end) <= 2
            ):
                placed[index] = replace(place, path=place.path + ("/left" if "L" in place.sides else "/right"))
        return placed, side

    def _postfix(self, tokens: list[_Token], index: int, placed: dict[int, Place], value: str) -> None:
        """`胸腔左侧`, `中线向左移`: a side right behind a structure that has none of its own and before no other."""
        side = tokens[index]
        earlier = max((i for i in placed if i < index), default=None)
        if earlier is None or placed[earlier].said_side is not None:
            return
        before = placed[earlier]
        gap = self.text[before.end : side.start]
        follows = index + 1 < len(tokens) and tokens[index + 1].kind == "place" and tokens[index + 1].start == side.end
        if not follows and (not gap or (len(gap) <= 2 and gap[-1] in "向偏")):
            placed[earlier] = replace(before, sides=_SIDES[value], said_side=(side.start, side.end))

    def _specific(self, places: list[Place]) -> list[Place]:
        """`右膝内侧半月板` is one place, not the knee and the meniscus: a structure right before a part of it goes."""
        return [
            place
            for place, after in zip(places, [*places[1:], None], strict=True)
            if after is None
            or place.path == after.path
            or not inside(after.path, place.path)
            or after.start - place.end > 1
            or bool(set(self.text[place.end : after.start]) & _JOINS)
        ]

    def _clause(
        self,
        clause: _Clause,
        tokens: list[_Token],
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
        made: list[int] = []
        for index, token in enumerate(tokens):
            if index in placed:
                if placed[index].path == "limb" and (carried or (fresh_group and group)):
                    continue  # 关节面, 周围软组织: a part of whatever was named before
                if not fresh_group:
                    group = []
                    fresh_group = True
                group.append(placed[index])
            elif token.kind == "neg":
                negated = True
            elif token.kind == "pos":
                negated = False
            elif token.kind in ("h1", "h2", "h3"):
                hedge = self._hedge(token, made, hedge)
            elif token.kind in ("one", "many"):
                count = token.kind
            elif token.kind == "n":
                count = _COUNT_WORDS.get(str(token.value)[:-1], str(token.value)[:-1])
            elif token.kind == "post":
                if made and token.start - self.facts_end(made[-1]) <= 3:
                    self._change(made[-1], polarity=False, certainty=0)
            elif token.kind == "lesion":
                lesion = str(token.value)
                if self.text.startswith(("术后", "切除术后"), token.end):
                    continue  # 主动脉夹层术后: what was operated on is no longer a finding
                if fresh_group and group:
                    current = self._specific(group)
                    fresh_group = False
                elif not current:
                    current = carried
                if lesions()[lesion].only and not self._belongs(lesion, current):
                    continue
                places = self._own_place(lesion, token, current, tokens[:index])
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
            target = self._pointed_at(first, text)
            if target is not None:
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
        return (behind or current or carried), []

    def facts_end(self, index: int) -> int:
        return self._ends[index]

    def _change(self, index: int, **new: Any) -> None:
        self.facts[index] = replace(self.facts[index], **new)

    def _hedge(self, token: _Token, made: list[int], hedge: int) -> int:
        """A hedge behind a finding weakens it (and those joined to it); one before weakens what follows in the clause."""
        value = {"h1": 1, "h2": 2, "h3": 3}[token.kind]
        word = str(token.value)
        before = word.startswith(_HEDGES_BEFORE)
        if made and not (before and token.start - self.facts_end(made[-1]) > 0 and value > 1):
            for index in reversed(made):
                if self.facts[index].certainty in (0, 2, 4) and self.facts[index].polarity:
                    self._change(index, certainty=min(self.facts[index].certainty, value) if value < 3 else value)
                if index != made[0] and self.text[self.facts_end(index - 1) : self.facts_end(index)].count("伴"):
                    break
            return value if before else 4
        return value

    def _belongs(self, lesion: str, places: list[Place]) -> bool:
        """A word like 突出 is a finding of the spine only; elsewhere it describes a contour."""
        place = lesions()[lesion].place or ""
        return not places or any(inside(each.path, place) or inside(place, each.path) for each in places)

    def _own_place(self, lesion: str, token: _Token, current: list[Place], before: list[_Token]) -> list[Place]:
        """The places of the clause, or the one that the word itself names when they do not fit it (`右侧气胸`)."""
        implied = lesions()[lesion].place
        if implied is None:
            return current
        if any(inside(place.path, implied) or inside(implied, place.path) for place in current):
            return current
        if current and implied.split("/")[0] == current[0].path.split("/")[0]:
            return current
        side = next((t for t in reversed(before) if t.kind in ("side", "place", "lesion")), None)
        if side is None or side.kind != "side" or token.start - side.end > 4:
            return [Place(implied, _NOWHERE, token.start, token.end)]
        return [Place(implied, _SIDES[str(side.value)], token.start, token.end, (side.start, side.end))]

    def _pointed_at(self, first: int, clause: str) -> int | None:
        """The finding of this sentence that `其中最大者位于右肺中叶` or `以右肺为著` speaks of."""
        if len(self.facts) > first and re.search(r"位于|大者|为著|为主|明显|显著|较重|最大", clause):
            return len(self.facts) - 1
        return None

    def _absent(self, clause: _Clause, tokens: list[_Token], places: list[Place]) -> None:
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
