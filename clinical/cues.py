"""Words that change what a finding means: negation, doubt, counts, normality, sides, advice; and where a sentence ends.

Patterns over the masked matching copy. What they apply to is `clinical.scanner`'s to say.
"""

from __future__ import annotations

import re

from clinical.lexicon import lesion_terms

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

CUES = re.compile(
    r"(?P<skip>无强化|无肺?纹理|无壁|不均匀?|不清晰?|不规则|不稳|不全|不平整?|不齐|不光整|不光滑|不等|不对称|不连续|不整|不足|不良|不张|未闭|未降|未完全|无名|无菌"
    r"|不同|不典型|不完全|不一|不适|无法|较前|未破)"
    r"|(?P<h1>不(?:能|可|除)?(?:完全)?(?:除外|排除|外)|待(?:排除?|除外|查|定)|(?:以|进一步)?(?:除外|排除)|未除外"
    r"|not excluded|cannot be excluded|rule out|à exclure)"
    r"|(?P<h3>可能性?(?:较|稍)?大|首先考虑|倾向于?|高度怀疑|probabl[ey]|likely|suggestive of|vraisemblable\w*|probable)"
    r"|(?P<h2>可能性?|考虑为?|疑似?|可疑|拟诊|怀疑|\?|possibl[ey]|suspected|suspicious for|may represent|éventuel\w*|suspicion|évocat\w+)"
    r"|(?P<neg>未(?=超出|越过|突向|突入|凸向)|未见|未及|未显示|未发现|未示|未探及|未提示|未触及|没有|无(?:明显|明确|确切)*|否认|不伴有?|未伴|未有"
    r"|(?<![a-z])(?:no|not|without|negative for|absence of|free of|pas de|sans|absence de|aucune?|ni)(?![a-z])"
    r"|(?<![a-z])(?:pas d'|absence d'|ni d'))"
    r"|(?P<post>不(?:大|厚|宽|明显|扩张|增厚|增宽|肿大|增大|高|粗)|未(?:增厚|扩张|受累|受侵|肿大|增大|增宽)|\(-\)|阴性|已?消失|已?吸收)"
    r"|(?P<pos>可见|另见|(?<![未所少常])见|(?<!不)伴有?|合并|并发|但|呈|(?<![a-z])(?:with|but|there is|there are|avec|mais)(?![a-z])|[ée]tiolog)"
    r"|(?P<one>单发|孤立性?|单个|一[枚个]|1[枚个处]|(?<![a-z])(?:single|solitary|unique)(?![a-z]))"
    r"|(?P<many>多发|多个|多枚|多处|散在|数枚|数个|若干|(?<![a-z])(?:multiple|several|scattered|multiples|plusieurs)(?![a-z]))"
    r"|(?P<n>[2-9]|1\d|[两二三四五六七八九十])[枚个处颗]"
    r"|(?P<normal>正常|未见(?:明显)?异常|光整|光滑|居中|对称(?!性)|清晰|通畅|自然|在位|良好|如常|尚可|尚清|规整|协调|完整|存在|连续(?!性?中断)|均匀|(?<![a-z])(?:normal|unremarkable|normale?s?)(?![a-z]))"
)
ADVICE = re.compile(
    r"^(?:附[见:])?(?:请|建议|必要时|随诊|随访|复查|结合临床|定期|进一步|治疗后|短期|\d*\x00*后?复查"
    r"|follow[- ]?up|recommend|clinical correlation|à corréler|contrôle)"
    r"|建议|请结合|请随诊|必要时|随诊|随访|定期复查|后复查|请临床|recommend|correlat"
)
SIDE = re.compile(
    r"(?P<B>双侧|两侧|双边|左右两?侧|左右(?!径|缘|前后|优势)|左、右侧?|双(?=上|下|中|肺|肾|膝|髋|眼|耳|乳|侧|肩|踝|腕|肘|手|足|额|颞|顶|枕|基底|大脑|小脑|卵巢|附件|股|胫|髂|骶|颈|腮|颌|甲状|肋|胸|锁|膈|髌|跟|筛|上颌|蝶|半卵圆|放射冠|丘脑|输尿管|肾上腺|眶|鼻|扁桃|腹股沟|睾|精囊|丘|内听道|中耳|乳突)"
    r"|两(?=膈|上|下|肺|肾|膝|髋|眼|耳|乳|额|颞|顶|枕|基底|大脑|小脑|胸|股|胫|髂|骶|颈|腮|颌|肋|锁|筛|上颌|肾上腺|中上|中下|半卵圆|放射冠|丘脑|输尿管|眶|鼻|腹股沟|睾|中耳|乳突|肩|踝|腕|肘)|(?<![a-z])(?:bilateral(?:ly)?|both|bilatéra\w+)(?![a-z]))"
    r"|(?P<L>左侧|左(?!右|位心|前斜|主干|前降|回旋|心[房室耳]|[房室]|冠|侧?卧)|(?<![a-z])left(?![a-z])|(?<![a-z])gauches?(?![a-z])|\(l\))"
    r"|(?P<R>右侧(?!优势)|右(?!位心|前斜|优势|冠|心[房室耳]?|[房室]|降|侧?优势|侧?卧)|(?<![a-z])right(?![a-z])|(?<![a-z])droite?s?(?![a-z])|\(r\))"
)
SENTENCE = re.compile(r"[。;!?\n]+|(?<!\d)\.(?!\d)|\.(?=\s|$)")
HEDGES_BEFORE = (
    "考虑", "疑", "可疑", "拟", "怀疑", "倾向", "首先", "高度", "不", "除外", "排除", "以", "进一步",
    "suspected", "suspicious", "suggestive", "rule", "probabl", "possibl", "likely", "may",
)  # fmt: skip
COMMA = re.compile(r"[,:]")
REST = re.compile(r"^[ \x00]*(?:其?余|其[他它]|剩余|the rest|remaining|otherwise|le reste)")
REASON = re.compile(
    r"^(?:clinical (?:history|information|details|examination)|indications?|reason|history|technique|protocole?|comparison"
    r"|evaluation of|assessment of|search for|suspicion|suspected|at the emergency|antécédents?|renseignements|motif|bilan"
    r"|surveillance|contrôle|recherche|examen clinique|aux urgences|troubles)(?![a-z])"
)
"""How foreign reports begin a line on why and how the examination was made; it states nothing about what was seen."""


def counted(word: str) -> str:
    """`3枚`, `三枚` as "3"."""
    return _COUNT_WORDS.get(word[:-1], word[:-1])


def only_advice(sentence: str) -> bool:
    """Whether every clause that says something is advice."""
    said = False
    for clause in COMMA.split(sentence):
        plain = clause.strip(" \x00、")
        if not plain:
            continue
        if ADVICE.search(plain) is None:
            if said and len(plain) <= 6 and not lesion_terms().find(plain):
                continue  # 请结合临床，必要时MR检查，随诊: a short tail without a finding belongs to the advice
            return False
        said = True
    return said
