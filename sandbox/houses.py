"""The house styles of the pretend institutions as data: 1 to 6 are hospitals A to F, 7 is reserved: nothing that is shipped was trained on it.

Holds how each house writes titles, numbers, sides, levels, sizes, hedges and advice, and how often its texts carry blemishes
(the table of the design notes, A3). Writes nothing itself. All wording is simplified; house 5 is turned into traditional
script after rendering.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from sandbox.facts import Language

Sides = tuple[str, str, str]
"""Words for left, right and both."""


@dataclass(frozen=True, slots=True)
class SizeStyle:
    """How sizes are written: millimetres times `factor` with `digits` decimals, `unit` after each axis or after the last."""

    unit: str
    times: str
    factor: float = 1.0
    digits: int = 0
    unit_on_each: bool = False
    axes: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class LevelStyle:
    """How spine levels are written: `disc` from region word, upper and lower number; `junction` for L5/S1."""

    disc: str
    junction: str
    vertebra: str
    latin: bool
    join: str = "、"


@dataclass(frozen=True, slots=True)
class Numbering:
    """How impression items are listed: `marks` in order, `between` items, `last` at the end; `single` numbers even one."""

    marks: tuple[str, ...]
    between: str
    last: str
    single: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """One house style. Rates are shares of reports (0 to 1)."""

    number: int
    code: str
    name: str
    sides: tuple[Sides, ...]
    short_sides: tuple[Sides, ...]
    size: SizeStyle
    size_in_impression: bool
    levels: LevelStyle
    numbering: Numbering
    hedges: Mapping[str, tuple[int, str]]
    hedges_unseen: Mapping[str, tuple[int, str]]
    advice: Literal["line", "none", "inline", "field", "always"]
    advice_texts: tuple[str, str]
    normal_impression: str
    cuts: Mapping[str, tuple[float, float]]
    duplicates: float
    empty_impressions: float
    addenda: float
    findings_title: str
    impression_title: str
    titles: float
    noise: Mapping[str, float]
    language: Language = "zh-Hans"
    numbering_mr: Numbering | None = None
    abbreviations: tuple[tuple[str, str], ...] = ()
    half_width: bool = False
    organ_labels: bool = False
    html: float = 0.0
    header_lines: float = 0.0
    incidental: float = 0.0
    no_reviewer: float = 0.05
    first_day: int = field(default=0)
    """Days after 2021-01-01 on which the house's records begin."""


_CUTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "nodule": (5, 10),
        "ggn": (6, 15),
        "effusion": (20, 40),
        "pericard": (10, 20),
        "joint": (8, 16),
        "fatty": (20, 32),
        "stenosis": (50, 70),
    }
)
SCALE_WORDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "nodule": ("微小", "小", ""),
        "ggn": ("12个月", "6个月", "3个月"),
        "effusion": ("少量", "中量", "大量"),
        "pericard": ("少量", "中量", "大量"),
        "joint": ("少量", "中等量", "大量"),
        "fatty": ("重度", "中度", "轻度"),
        "stenosis": ("轻度", "中度", "重度"),
    }
)
"""Words for a value below the first cut, below the second, and from there on."""

_FULL: Sides = ("左侧", "右侧", "双侧")
_SHORT: Sides = ("左", "右", "双")
_DIGITS = tuple(str(n) for n in range(1, 20))
_HAN = ("一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二", "十三", "十四")
_CIRCLED = tuple("①②③④⑤⑥⑦⑧⑨⑩")


def _cuts(**own: tuple[float, float]) -> Mapping[str, tuple[float, float]]:
    return MappingProxyType({**_CUTS, **own})


HOUSES: Mapping[int, House] = MappingProxyType(
    {
        house.number: house
        for house in (
            House(
                number=1,
                code="A",
                name="甲院",
                sides=(("左侧", "右侧", "两侧"), _FULL),
                short_sides=(("左", "右", "两"), _SHORT),
                size=SizeStyle("mm", "×"),
                size_in_impression=False,
                levels=LevelStyle("{0}{1}/{2}", "{0}{1}/{3}{2}", "{0}{1}", latin=False),
                numbering=Numbering(tuple(f"{n}、" for n in _DIGITS), "；\n", "。"),
                hedges={"weak": (2, "{}可能"), "strong": (2, "考虑{}")},
                hedges_unseen={"weak": (2, "疑{}"), "strong": (2, "考虑{}可能")},
                advice="line",
                advice_texts=("请结合临床，随诊。", "请结合临床，必要时进一步检查。"),
                normal_impression="{}未见明显异常。",
                cuts=_CUTS,
                duplicates=0.03,
                empty_impressions=0.005,
                addenda=0.01,
                findings_title="",
                impression_title="{}示：\n",
                titles=0.04,
                noise={"image": 0.10, "width": 0.03, "glyph": 0.02, "trail": 0.03, "wei": 0.002, "fffd": 0.002},
                incidental=0.10,
            ),
            House(
                number=2,
                code="B",
                name="乙院",
                sides=(_FULL,),
                short_sides=(_SHORT,),
                size=SizeStyle("cm", "×", factor=0.1, digits=1, unit_on_each=True),
                size_in_impression=True,
                levels=LevelStyle("{0}{1}/{2}", "{0}{1}/{3}{2}", "{0}{1}", latin=True),
                numbering=Numbering(tuple(f"{n}." for n in _DIGITS), "；\n", "。"),
                hedges={"weak": (1, "{}待排"), "strong": (3, "{}可能性大")},
                hedges_unseen={"weak": (1, "除外{}"), "strong": (3, "高度怀疑{}")},
                advice="none",
                advice_texts=("", ""),
                normal_impression="{}未见异常。",
                cuts=_cuts(nodule=(4, 8), effusion=(15, 35)),
                duplicates=0.08,
                empty_impressions=0.01,
                addenda=0.01,
                findings_title="影像所见：",
                impression_title="影像诊断：",
                titles=0.25,
                noise={"nbsp": 0.15, "double": 0.01, "width": 0.02, "quote": 0.005},
                html=0.20,
                first_day=150,
            ),
            House(
                number=3,
                code="C",
                name="丙院",
                sides=(("左", "右", "双"),),
                short_sides=(_SHORT,),
                size=SizeStyle("mm", "×", axes=1),
                size_in_impression=False,
                levels=LevelStyle("{0}{1}、{2}", "{0}{1}、{3}{2}", "{0}{1}", latin=False, join="及"),
                numbering=Numbering((), "；", "。"),
                hedges={"weak": (2, "{}？"), "strong": (2, "{}？")},
                hedges_unseen={"weak": (2, "{}？待查"), "strong": (2, "疑为{}")},
                advice="inline",
                advice_texts=("，请结合临床", "，建议复查"),
                normal_impression="{}未见明显异常。",
                cuts=_cuts(nodule=(6, 10)),
                duplicates=0.20,
                empty_impressions=0.03,
                addenda=0.0,
                findings_title="描述：",
                impression_title="结论：",
                titles=0.25,
                noise={"homophone": 0.02, "drop": 0.02, "wei": 0.005, "glyph": 0.02, "nobreak": 0.05},
                first_day=200,
            ),
            House(
                number=4,
                code="D",
                name="丁院",
                sides=(("(L)", "(R)", "双侧"), _FULL),
                short_sides=(("(L)", "(R)", "双"), _SHORT),
                size=SizeStyle("mm", "X"),
                size_in_impression=False,
                levels=LevelStyle("{0}{1}-{2}", "{0}{1}-{3}{2}", "{0}{1}", latin=True),
                numbering=Numbering(tuple(f"({n})" for n in _DIGITS), ";\n", "."),
                hedges={"weak": (1, "{}不除外"), "strong": (2, "疑似{}")},
                hedges_unseen={"weak": (1, "不能除外{}"), "strong": (2, "{}可疑")},
                advice="field",
                advice_texts=("\n建议:定期复查.", "\n建议:进一步检查."),
                normal_impression="{}未见明显异常征象.",
                cuts=_cuts(effusion=(25, 50), stenosis=(50, 75)),
                duplicates=0.05,
                empty_impressions=0.005,
                addenda=0.03,
                findings_title="检查所见：",
                impression_title="意见：",
                titles=0.25,
                noise={"width": 0.10, "unit": 0.03, "fffd": 0.01, "image": 0.03},
                numbering_mr=Numbering(_CIRCLED, ";\n", "."),
                abbreviations=(("转移瘤", "MT"), ("淋巴结", "LN"), ("癌", "Ca")),
                half_width=True,
                no_reviewer=0.12,
                first_day=100,
            ),
            House(
                number=5,
                code="E",
                name="戊院",
                sides=(_FULL,),
                short_sides=(("左", "右", "两"),),
                size=SizeStyle(" mm", " × "),
                size_in_impression=False,
                levels=LevelStyle("第{1}/{2}{0}椎", "第{1}{0}椎/第{2}{3}椎", "第{1}{0}椎", latin=False),
                numbering=Numbering(tuple(f"{n}、" for n in _HAN), "。\n", "。"),
                hedges={"weak": (3, "倾向{}"), "strong": (3, "倾向{}")},
                hedges_unseen={"weak": (2, "须考虑{}"), "strong": (3, "首先考虑{}")},
                advice="line",
                advice_texts=("建议随访。", "建议进一步检查。"),
                normal_impression="{}未见明显异常。",
                cuts=_cuts(nodule=(5, 8), fatty=(15, 30)),
                duplicates=0.04,
                empty_impressions=0.01,
                addenda=0.01,
                findings_title="影像学表现：\n",
                impression_title="印象：\n",
                titles=0.25,
                noise={"script": 0.30, "double": 0.01},
                language="zh-Hant",
                first_day=50,
            ),
            House(
                number=6,
                code="F",
                name="己院",
                sides=(_FULL,),
                short_sides=(_SHORT,),
                size=SizeStyle("CM", "*", factor=0.1, digits=1),
                size_in_impression=False,
                levels=LevelStyle("{0}{1}/{0}{2}", "{0}{1}/{3}{2}", "{0}{1}", latin=True),
                numbering=Numbering(tuple(f"{n}、" for n in _DIGITS), "；\n", "。", single=True),
                hedges={"weak": (3, "符合{}表现"), "strong": (3, "符合{}表现")},
                hedges_unseen={"weak": (2, "{}可疑"), "strong": (3, "多系{}")},
                advice="always",
                advice_texts=("请结合临床及其他检查。", "请结合临床及其他检查。"),
                normal_impression="{}未见明显异常。",
                cuts=_cuts(effusion=(20, 50), nodule=(5, 12)),
                duplicates=0.12,
                empty_impressions=0.02,
                addenda=0.04,
                findings_title="{0}\n{0}\n",
                impression_title="",
                titles=0.20,
                noise={"blank": 0.03, "unit": 0.03, "quote": 0.01, "double": 0.01},
                organ_labels=True,
                header_lines=0.25,
                no_reviewer=0.10,
                first_day=250,
            ),
            House(
                number=7,
                code="G",
                name="庚院",
                sides=(("左", "右", "左右"),),
                short_sides=(("左", "右", "左右"),),
                size=SizeStyle("毫米", "×"),
                size_in_impression=True,
                levels=LevelStyle("{0}{1}～{2}", "{0}{1}～{3}{2}", "{0}{1}", latin=True),
                numbering=Numbering(tuple(f"{n}）" for n in _DIGITS), "。", "。"),
                hedges={"weak": (1, "{}待除外"), "strong": (3, "首先考虑{}")},
                hedges_unseen={"weak": (2, "疑诊{}"), "strong": (3, "{}可能大")},
                advice="field",
                advice_texts=("\n处理：门诊随访。", "\n处理：专科就诊。"),
                normal_impression="本次{}未见确切异常。",
                cuts=_cuts(nodule=(3, 9), stenosis=(40, 70)),
                duplicates=0.05,
                empty_impressions=0.01,
                addenda=0.02,
                findings_title="放射学表现\n",
                impression_title="放射学诊断\n",
                titles=0.5,
                noise={"image": 0.05, "double": 0.01, "trail": 0.05},
                first_day=300,
            ),
        )
    }
)
