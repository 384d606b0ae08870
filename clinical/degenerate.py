"""Drafts that are no impression at all: empty, looping, cut off, echoing the prompt, in the wrong language, naming people.

These rules look at the draft only (the findings merely excuse what was copied from them); each hit withholds the draft.
Whether a proper impression is faithful to its findings is for `clinical.rules`.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator

from clinical.context import Context, Statement
from clinical.deidentify import PLACEHOLDER, identifiers
from clinical.issues import Issue, Kind, Severity
from clinical.lexicon import latin_words, simplified_only, traditional

# Whisper's value carries over: hand-made and real impressions compress to 0.69-1.41, loops to 5 and more (UTF-8, zlib 6).
LOOP_RATIO = 2.4
LOOP_RATIO_LEVELS = 4.0  # a list of one finding at many different levels is legitimate and compresses well
LOOP_MIN_CHARACTERS = 40
UNIT_TIMES = 4  # a unit of 2-30 characters this often in a row
DUPLICATE_MIN_CHARACTERS = 8
ECHO_CHARACTERS = 12  # this many characters in a row that stand in the instruction and nowhere in the findings
HAN_SHARE = 0.3
FOREIGN_WORDS = 3

_ORDINAL = re.compile(
    r"(?:^|(?<=[\n。;；,，]))[ \t]*(?:[(（]?\d{1,3}(?:[、)）．]|\.(?!\d))|[①-⑳]|[一二三四五六七八九十]{1,3}、)[ \t]*",
    re.MULTILINE,
)
_LETTERS = re.compile(r"[\W_]+")
_UNIT = re.compile(rf"(.{{2,30}}?)\1{{{UNIT_TIMES - 1},}}", re.DOTALL)
_ONE_CHARACTER = re.compile(r"([^\W\d_])\1{7,}")
_LEVEL_LIKE = re.compile(r"(?:[颈胸腰骶]|[CTLS])\d{1,2}(?:[/-](?:[颈胸腰骶]|[CTLS])?\d{1,2})?")
_NOTHING = re.compile(
    r"^(?:无|没有|暂无|空|不详|未知|未填|none|null|n/?a|nil|nan|undefined|rien|néant|aucun)$", re.IGNORECASE
)

_TAIL_CHARACTERS = 384
_TAIL_PERIOD = 96
_DIGITS = re.compile(r"\d+")


def ratio(text: str) -> float:
    """How many times smaller zlib makes the text; 1 for an empty one."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else 1.0


def without_ordinals(text: str) -> str:
    """List numbers removed, nothing else: other digits tell the items of a list of levels apart."""
    return _ORDINAL.sub("", text)


def looping(text: str) -> bool:
    """Whether the end of a text that is still being written goes round in circles. Looks at the last 384 characters only.

    A period repeated 3 times (4 times below 9 characters, 8 times below 4), the same with list numbers taken out, the
    same with every number made equal but 7 times, or a tail that compresses like a loop.
    """
    tail = text[-_TAIL_CHARACTERS:]
    if _periodic(tail) or _periodic(without_ordinals(tail)):
        return True
    levelled = _DIGITS.sub("0", tail)
    if any(_ends_with(levelled, period, 7) for period in range(6, 41)):
        return True
    whole_items = tail[: max(tail.rfind(mark) for mark in "。;；\n") + 1]
    return len(whole_items) >= 2 * LOOP_MIN_CHARACTERS and _compresses_like_a_loop(without_ordinals(whole_items))


def _periodic(tail: str) -> bool:
    for period in range(1, min(_TAIL_PERIOD, len(tail) // 3) + 1):
        times = 8 if period <= 3 else 4 if period <= 8 else 3
        if _ends_with(tail, period, times) and any(c.isalnum() for c in tail[-period:]):
            return True
    return False


def _ends_with(text: str, period: int, times: int) -> bool:
    whole = period * times
    return len(text) >= whole and text[-whole:-period] == text[period - whole :]


def _compresses_like_a_loop(text: str) -> bool:
    if len(text) < LOOP_MIN_CHARACTERS:
        return False
    found = ratio(text)
    if found <= LOOP_RATIO:
        return False
    levels = [tuple(_LEVEL_LIKE.findall(item)) for item in re.split(r"[。;；\n]", text) if item.strip()]
    all_differ = all(levels) and len(set(levels)) == len(levels)
    return found > LOOP_RATIO_LEVELS or not all_differ


# --- the rules ---------------------------------------------------------------------------------------------------------


_MESSAGES = {
    "null.empty": ("草稿没有内容", "The draft is empty"),
    "null.short": ("草稿只有“{}”", "The draft is only “{}”"),
    "null.advice_only": ("草稿只有建议，没有诊断意见", "The draft is advice only"),
    "repetition.unit": ("“{}”连续重复", "“{}” is repeated in a row"),
    "repetition.item": ("同一条意见重复出现：“{}”", "The same item stands twice: “{}”"),
    "repetition.compression": ("草稿内容反复（压缩比 {}）", "The draft repeats itself (compression ratio {})"),
    "repetition.tail": ("草稿结尾反复", "The draft ends in a loop"),
    "truncation.length": ("草稿在长度上限处中断", "The draft was cut off at the length limit"),
    "truncation.dangling": ("草稿没有写完：“…{}”", "The draft is unfinished: “…{}”"),
    "truncation.bracket": ("括号“{}”没有结束", "The bracket “{}” is not closed"),
    "prompt_leak.echo": ("草稿重复了指令“{}”", "The draft repeats the instruction: “{}”"),
    "prompt_leak": ("草稿含有模板内容“{}”", "The draft contains template text: “{}”"),
    "phi": ("草稿含有患者或人员的身份信息", "The draft identifies a person"),
    "language.script": ("草稿含有其他文字“{}”", "The draft contains another script: “{}”"),
    "language.words": ("草稿含有外文“{}”", "The draft contains another language: “{}”"),
    "language.share": ("草稿几乎没有中文", "The draft is hardly in Chinese"),
    "language.han": ("草稿含有中文“{}”", "The draft contains Chinese characters: “{}”"),
    "language.glyphs": ("草稿含有另一种字形“{}”", "The draft contains glyphs of the other Chinese script: “{}”"),
}
"""By rule, or by kind where its rules share one: Chinese and English; {} is what the draft says."""


def _issue(
    context: Context, rule: str, span: tuple[int, int], quoted: str = "", severity: Severity = Severity.WITHHOLD
) -> Issue:
    """An issue about a span of the raw draft."""
    kind = Kind(rule.partition(".")[0])
    chinese, english = _MESSAGES.get(rule) or _MESSAGES[kind]
    message = context.say(chinese.format(quoted), english.format(quoted))
    return Issue(kind, severity, None, span if span[1] > span[0] else None, message, rule)


def _withheld(context: Context, rule: str, quoted: str = "", start: int = 0, end: int | None = None) -> Issue:
    """An issue about a span of the draft's matching copy; the whole of it unless told."""
    reading = context.impression
    return _issue(context, rule, reading.span(start, len(reading.text) if end is None else end), quoted)


def null(context: Context) -> Iterator[Issue]:
    """Nothing is left after punctuation, title and advice."""
    text = context.impression.text
    letters = _LETTERS.sub("", without_ordinals(text))
    if not letters or _NOTHING.match(letters):
        yield _withheld(context, "null.empty")
        return
    if len(letters) < 2 or letters.isdigit():
        yield _withheld(context, "null.short", letters)
        return
    if all(statement.advice or not _LETTERS.sub("", statement.text) for statement in context.impression.statements):
        yield _withheld(context, "null.advice_only")


def repetition(context: Context) -> Iterator[Issue]:
    """Characters, phrases, items or numbered items in a circle."""
    text = context.impression.text
    plain = without_ordinals(text)
    for pattern, body in ((_UNIT, text), (_UNIT, plain), (_ONE_CHARACTER, text)):
        for match in pattern.finditer(body):
            unit = match[1]
            if any(c.isalpha() for c in unit):
                start, end = match.span() if body is text else (0, len(text))
                yield _withheld(context, "repetition.unit", unit, start, end)
                return
    items: Counter[str] = Counter()
    first: dict[str, Statement] = {}
    for statement in context.impression.statements:
        body = _LETTERS.sub("", without_ordinals(statement.text))
        if body and not statement.advice:
            items[body] += 1
            if items[body] == (2 if len(body) >= DUPLICATE_MIN_CHARACTERS else 3):
                yield _withheld(context, "repetition.item", statement.text, statement.start, statement.end)
                return
            first.setdefault(body, statement)
    if _compresses_like_a_loop(plain):
        yield _withheld(context, "repetition.compression", f"{ratio(plain):.1f}")
    elif looping(text):
        yield _withheld(context, "repetition.tail")


_TERMINAL = re.compile(r"[。;.!?)\]】\"'…]\s*$")
_DANGLING = re.compile(
    r"(?:[、/×(\[【{<:]|[及伴和与并或]|(?<!大)约|大小约?为?|直径约?为?|其中|位于|以及|合并|(?:^|[\n;。])\s*\d{1,2}[、.)]|(?:约|×|大小|直径)\d+\.)\s*$"
)
_DANGLING_VERB = re.compile(
    r"[,:;\n](?:首先)?(?:考虑|倾向于?|疑似?|怀疑|可疑|拟诊?|提示|建议|请|符合|可见|见|大小|范围)\s*$"
)
_DANGLING_COMMA = re.compile(r"[,-]\s*$")
_NUMBER_AT_END = re.compile(r"(?:约|大小|直径|长径|短径|厚|宽|深|×)\s*为?\s*\d+(?:\.\d+)?\s*$")
_OPEN = {"(": ")", "[": "]", "【": "】", "{": "}", "《": "》"}


def truncation(context: Context) -> Iterator[Issue]:
    """Cut off: the token limit without an end, a dangling conjunction or number, an open bracket."""
    text = context.impression.text.rstrip()
    if not text:
        return
    finish = context.pair.finish
    if finish == "length" and not _TERMINAL.search(text):
        yield _withheld(context, "truncation.length", start=max(0, len(text) - 8))
        return
    dangling = _DANGLING.search(text) or _NUMBER_AT_END.search(text) or _DANGLING_VERB.search(text)
    if dangling is None and finish is not None:
        dangling = _DANGLING_COMMA.search(text)
    if dangling is not None:
        yield _withheld(
            context,
            "truncation.dangling",
            text[-10:],
            dangling.start(),
            len(text),
        )
        return
    opened: list[tuple[str, int]] = []
    for index, character in enumerate(text):
        if character in _OPEN:
            opened.append((character, index))
        elif opened and character == _OPEN[opened[-1][0]]:
            opened.pop()
    if opened and not any(mark in text[opened[-1][1] :] for mark in ("。", "\n")):
        yield _withheld(context, "truncation.bracket", opened[-1][0], opened[-1][1])


_LEAKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("token", re.compile(r"<\|?/?[a-zA-Z_][\w|]{0,30}>|\[/?INST\]|<<SYS>>|\|im_(?:start|end)\||```|###+")),
    (
        "role",
        re.compile(
            r"(?:^|\n)\s*(?:user|assistant|system|model|human|用户|助手|系统|模型|专家指令|问|答)\s*:",
            re.IGNORECASE,
        ),
    ),
    (
        "heading",
        re.compile(
            r"(?:^|\n)\s*(?:(?:影像|检查|放射)?(?:学)?(?:诊断)?(?:印象|意见|结论|所见|表现|描述|诊断)"
            r"|findings?|impressions?|conclusions?|résultats?)\s*:",
            re.IGNORECASE,
        ),
    ),
    (
        "placeholder",
        re.compile(
            r"×{2,}|(?<![A-Za-z])[xX]{2,}(?=mm|cm|[^A-Za-z]|$)|某某|[○〇]{2,}|_{2,}|\{[^{}\n]{0,40}\}|\bTODO\b"
            r"|\[[^\]\n\d]{0,4}(?:姓名|部位|大小|填写|请|name|size|side|level|date)[^\]\n]{0,20}\]",
            re.IGNORECASE,
        ),
    ),
    (
        "assistant",
        re.compile(
            r"作为(?:一[个名位])?(?:AI|人工智能|语言模型|助手|(?:专业的?)?(?:放射|影像)科?医[生师])|我(?:是|无法|不能)"
            r"|(?:根据|基于)(?:以上|上述|您|所提供|提供)的?(?:影像|检查|描述|所见|信息|内容|报告)|以下(?:是|为)"
            r"|请(?:根据|依据|按照|生成|输出)|(?:系统|角色|任务|指令|要求)(?:描述|设定|说明)?:"
            r"|as an ai\b|language model|here (?:is|are) the|based on the (?:above|provided)",
            re.IGNORECASE,
        ),
    ),
)
_HOUSE_BRACKET = re.compile(r"【[^】\n]{0,20}】?")


def prompt_leak(context: Context) -> Iterator[Issue]:
    """Template tokens, role tags, headings, placeholders or the instruction itself inside the draft."""
    text = context.impression.text
    for name, pattern in _LEAKS:
        match = pattern.search(text)
        if match is not None and not (
            name in ("placeholder", "token") and match[0] in context.findings.text and match[0] != PLACEHOLDER
        ):
            yield _withheld(context, f"prompt_leak.{name}", match[0].strip(), *match.span())
            return
    bracket = _HOUSE_BRACKET.search(text)
    if bracket is not None and "【" not in context.findings.text:
        yield _withheld(context, "prompt_leak.bracket", bracket[0], *bracket.span())
        return
    if context.pair.prompt:
        start = _echo(text, context.instruction, context.findings.text, context.prior_text)
        if start is not None:
            echoed = text[start : start + ECHO_CHARACTERS]
            yield _withheld(
                context,
                "prompt_leak.echo",
                echoed,
                start,
                start + ECHO_CHARACTERS,
            )


def _echo(text: str, instruction: str, *allowed: str) -> int | None:
    """Where the draft repeats the instruction word for word, and not something it may take from the report."""
    for start in range(len(text) - ECHO_CHARACTERS + 1):
        piece = text[start : start + ECHO_CHARACTERS]
        if piece in instruction and not any(piece in other for other in allowed):
            return start
    return None


def phi(context: Context) -> Iterator[Issue]:
    """A labelled identifier, a telephone or identity number, or the record's own name or number."""
    raw = context.pair.impression
    for start, end, what in sorted(identifiers(raw, context.pair.known)):
        yield _issue(context, f"phi.{what}", (start, end))
        return


_FOREIGN_SCRIPT = re.compile(
    r"[\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3\u1100-\u11ff\u0400-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f]"
)
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ÿ]{3,}")
_FUNCTION_WORDS = {
    "fr": frozenset(
        ("le", "la", "les", "des", "du", "une", "est", "pas", "sans", "avec", "dans", "et", "sur", "au", "aux", "chez")
    ),
    "en": frozenset(
        ("the", "of", "and", "is", "are", "no", "with", "without", "in", "on", "there", "to", "for", "right", "left")
    ),
}


def language(context: Context) -> Iterator[Issue]:
    """Another script or language than the institution writes; other glyphs than its own are a marked span."""
    text, raw = context.impression.text, context.pair.impression
    wanted = context.pair.language
    foreign = _FOREIGN_SCRIPT.search(text)
    if foreign is not None and foreign[0] not in context.findings.text:
        yield _withheld(context, "language.script", foreign[0], *foreign.span())
        return
    if wanted.startswith("zh"):
        yield from _not_chinese(context, text)
        glyphs = traditional() if wanted == "zh-Hans" else simplified_only()
        odd = [index for index, character in enumerate(raw) if character in glyphs]
        if odd and not any(character in glyphs for character in context.pair.findings):
            quoted = "".join(raw[index] for index in odd[:6])
            yield _issue(context, "language.glyphs", (odd[0], odd[0] + 1), quoted, Severity.AMBER)
        return
    if len(_HAN.findall(text)) >= 2:
        yield _withheld(context, "language.han", "".join(_HAN.findall(text)[:6]))
        return
    words = Counter(word.lower() for word in re.findall(r"[^\W\d_]+", text))
    own = sum(words[word] for word in _FUNCTION_WORDS.get(wanted, ()))
    for other, function_words in _FUNCTION_WORDS.items():
        if other != wanted and sum(words[word] for word in function_words) >= FOREIGN_WORDS + own:
            yield _withheld(context, "language.words", " ".join(sorted(function_words & words.keys())))
            return


def _not_chinese(context: Context, text: str) -> Iterator[Issue]:
    allowed = latin_words()
    copied = context.findings.text.lower()
    strange = [
        match
        for match in _LATIN_WORD.finditer(text)
        if match[0].lower() not in allowed
        and match[0].lower() not in copied
        and not (match[0].isupper() and len(match[0]) <= 5)
    ]
    if len(strange) >= FOREIGN_WORDS:
        words = " ".join(match[0] for match in strange[:4])
        yield _withheld(context, "language.words", words, strange[0].start(), strange[-1].end())
        return
    letters = sum(character.isalpha() for character in text)
    han = len(_HAN.findall(text))
    if letters >= 6 and han < HAN_SHARE * letters and strange:
        yield _withheld(context, "language.share")
