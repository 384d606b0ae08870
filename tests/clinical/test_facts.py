"""What is read from a sentence, as a table: finding, places with sides, levels, sizes in mm, count, certainty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical.facts import Fact, Reading, facts
from clinical.levels import levels
from clinical.measures import lowered, masked, measures
from clinical.text import normalise


def _one(text: str, lesion: str, language: str = "zh-Hans") -> Fact:
    found = [fact for fact in facts(text, language=language) if fact.lesion == lesion]
    assert found, [fact.lesion for fact in facts(text, language=language)]
    return found[0]


PLACES = [
    ("右肺上叶尖段见实性结节", "nodule", {("chest/lung/upper/apical", "R")}),
    ("左、右肾见结石", "stone", {("abdomen/kidney", "LR")}),
    ("两侧胸腔积液", "effusion", {("chest/pleura", "LR")}),
    ("右肺上叶、左肺下叶见结节", "nodule", {("chest/lung/upper", "R"), ("chest/lung/lower", "L")}),
    ("左侧额叶、颞叶见出血灶", "hemorrhage", {("head/hemisphere/frontal", "L"), ("head/hemisphere/temporal", "L")}),
    ("见结节影位于右肺中叶", "nodule", {("chest/lung/middle", "R")}),
    ("脂肪肝", "fatty_liver", {("abdomen/liver", "")}),
    ("左心房增大", "chamber_big", {("chest/heart/left_atrium", "")}),
    ("肝右叶囊肿", "cyst", {("abdomen/liver/right", "R")}),
    ("前列腺左侧钙化", "calcification", {("abdomen/pelvis/prostate", "L")}),
    ("右肺中叶结节，肝囊肿", "cyst", {("abdomen/liver", "")}),
    ("右侧膈面抬高，肋膈角变钝", "costophrenic_blunt", {("chest/pleura", "R")}),
    ("右膝关节在位。髌上囊内见积液", "effusion", {("limb/knee/bursa", "R")}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "lesion", "places"), PLACES)
def test_a_finding_is_where_the_sentence_puts_it(text: str, lesion: str, places: set[tuple[str, str]]) -> None:
    assert {(place.path, "".join(sorted(place.sides))) for place in _one(text, lesion).places} == places


CERTAINTY = [
    ("左侧胸腔未见积液", "effusion", 0),
    ("胸腔无明显积液", "effusion", 0),
    ("未见骨折、脱位", "dislocation", 0),
    ("未见肿大淋巴结", "lymph_enlarged", 0),
    ("积液未见增多，右肺结节", "nodule", 4),
    ("左肺结节，转移待排", "metastasis", 1),
    ("左肺结节，转移不除外", "metastasis", 1),
    ("左肺肿块，考虑肺癌", "malignancy", 2),
    ("左肺肿块，肺癌可能", "malignancy", 2),
    ("左肺肿块，肺癌可能性大", "malignancy", 3),
    ("左肺下叶不张", "atelectasis", 4),
    ("肝内见不均匀低密度影", "low_density", 4),
    ("右肾无强化囊性灶", "cystic", 4),
    ("腰4椎体不稳", "instability", 4),
    ("胆囊未见", "postoperative", 4),
    ("两肺未见实变，可见结节", "nodule", 4),
]


@pytest.mark.parametrize(("text", "lesion", "certainty"), CERTAINTY)
def test_a_finding_is_as_sure_as_the_sentence_says(text: str, lesion: str, certainty: int) -> None:
    found = _one(text, lesion)
    assert (found.certainty, found.polarity) == (certainty, certainty > 0)


LEVELS = [
    ("腰4/5椎间盘", {"L4/5"}),
    ("L4/5", {"L4/5"}),
    ("L4-5椎间盘", {"L4/5"}),
    ("第4、5腰椎间盘", {"L4/5"}),
    ("第4/5腰椎间", {"L4/5"}),
    ("腰4、5椎间盘", {"L4/5"}),
    ("腰5/骶1", {"L5/S1"}),
    ("L5/S1", {"L5/S1"}),
    ("胸12椎体", {"T12"}),
    ("T12椎体", {"T12"}),
    ("颈3/4", {"C3/4"}),
    ("腰2/3-腰5/骶1椎间盘", {"L2/3", "L3/4", "L4/5", "L5/S1"}),
    ("腰3/4、4/5盘", {"L3/4", "L4/5"}),
    ("腰3-5椎体", {"L3", "L4", "L5"}),
    ("胸12-腰2椎体", {"T12", "L1", "L2"}),
    ("肝S8段", {"seg8"}),
    ("肝Ⅷ段", {"seg8"}),
    ("第4-6肋骨", {"rib4", "rib5", "rib6"}),
    ("大脑中动脉M1段", {"m1"}),
    ("38牙阻生", {"tooth38"}),
    ("T2WI高信号", set()),
    ("T1呈低信号，T2高信号", set()),
    ("（Se5，Im41-42）", set()),
    ("1、腰椎退变", set()),
    ("大小约5×4mm", set()),
    ("冠脉钙化积分LM=15.3", set()),
]


@pytest.mark.parametrize(("text", "expected"), LEVELS)
def test_a_level_has_one_name_in_every_notation(text: str, expected: set[str]) -> None:
    found = levels(masked(lowered(normalise(text).text)))
    assert set().union(*(level.names for level in found)) == expected


SIZES = [
    ("大小约5.4×4.7×7.5cm", [54, 47, 75]),
    ("20mm×43mm", [20, 43]),
    ("0.5*0.4CM", [5, 4]),
    ("5 X 4 mm", [5, 4]),
    ("直径约８ｍｍ", [8]),
    ("（Se5，Im186）直径8毫米", [8]),
    ("CT值约30HU", [30]),
    ("狭窄（50-69%）", [50, 69]),
    ("2021-07-22复查，3个月后", []),
    ("1、结节；2、囊肿", []),
    ("Im41-42", []),
]


@pytest.mark.parametrize(("text", "expected"), SIZES)
def test_measurements_are_read_in_one_unit_and_nothing_else_is_a_measurement(text: str, expected: list[float]) -> None:
    found = measures(masked(lowered(normalise(text).text)))
    assert [measure.value for measure in found] == pytest.approx(expected)


def test_count_size_and_spans_belong_to_the_finding() -> None:
    text = "两肺見多發結節，大者位於右肺上葉，大小約５×４mm。肝内2枚囊肿。"
    nodule, cyst = _one(text, "nodule"), _one(text, "cyst")
    assert text[slice(*nodule.span)] == "結節"
    assert (nodule.count, cyst.count) == ("many", "2")
    biggest = next(fact for fact in facts(text) if fact.emphasis)
    assert [measure.value for measure in biggest.sizes] == [5, 4]
    assert biggest.structures == ("chest/lung/upper",)


def test_a_finding_in_advice_is_marked_as_such() -> None:
    assert _one("胆总管高密度影，必要时MR检查除外结石", "stone").advice
    assert not _one("胆总管结石，请结合临床", "stone").advice


FOREIGN = [
    ("en", "Solid nodule in the right upper lobe, 6 mm. No pleural effusion.", "nodule", "R", True),
    ("en", "No pleural effusion on either side.", "effusion", "", False),
    ("en", "Findings suspicious for metastasis in the left kidney.", "metastasis", "L", True),
    ("fr", "Nodule du lobe supérieur droit de 6 mm. Pas d'épanchement pleural.", "effusion", "", False),
    ("fr", "Kyste du rein gauche.", "cyst", "", True),
]


@pytest.mark.parametrize(("language", "text", "lesion", "side", "polarity"), FOREIGN)
def test_english_and_french_are_read_through_the_same_interface(
    language: str, text: str, lesion: str, side: str, polarity: bool
) -> None:
    found = _one(text, lesion, language)
    assert found.polarity is polarity
    if side:
        assert found.sides == frozenset(side)


def test_coverage_is_the_share_of_statements_that_were_understood() -> None:
    assert Reading("右肺结节；左侧胸腔积液。请随诊。").coverage == 1
    assert Reading("右肺结节；这句话没有人写过词条。").coverage == 0.5


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    for fact in facts(text):
        assert 0 <= fact.span[0] <= fact.span[1] <= len(text)
