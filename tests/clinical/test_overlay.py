"""A department's own words: examined row by row, used by the checks, hashed into their version, never by the scorer."""

from threading import Barrier, Thread

import pytest

from clinical import lexicon, overlay
from clinical.checks import Kind, Pair, Severity, check, has_critical, version
from clinical.department import SHIPPED, Words, using
from clinical.evidence import Standing, evidence
from clinical.facts import facts


def loud(findings: str, impression: str, words: Words = SHIPPED) -> list[Kind]:
    issues = check(Pair(findings, impression, words=words))
    return [issue.kind for issue in issues if issue.severity is not Severity.INFO]


def stated(text: str, words: Words) -> list[str]:
    with using(words):
        return [fact.lesion for fact in facts(text)]


def test_a_word_of_the_department_is_read_like_a_shipped_one() -> None:
    assert not facts("右肺上叶见小花影。")
    own = overlay.read({"lesions.tsv": "# ours\nnodule\t\t\t\t小花影\n"})
    assert stated("右肺上叶见小花影。", own) == ["nodule"]
    assert loud("右肺上叶见小花影。", "左肺上叶结节。", own) == [Kind.SIDE]


def test_words_are_folded_as_texts_are() -> None:
    own = overlay.read({"lesions.tsv": "nodule\t3\t\t\t小花 Shadow影|結節樣花影\n"})
    assert stated("右肺小花 SHADOW影。左肺结节样花影。", own) == ["nodule", "nodule"]


def test_a_new_structure_and_a_new_finding_take_part_in_every_rule() -> None:
    files = {
        "anatomy.tsv": "abdomen/kidney/hilar_lip\tp\t肾唇区\nabdomen/kidney/hilar_lip~abdomen/ureter\n",
        "lesions.tsv": "blossom\t3\t\tnodule\t花斑病\n",
    }
    own = overlay.read(files)
    assert loud("左侧肾唇区见结节。", "右侧肾唇区花斑病。", own) == [Kind.SIDE]
    assert loud("左侧肾唇区花斑病。左肺结节。", "左肺结节。", own) == [Kind.OMITTED]


def test_what_the_department_takes_for_the_same_is_accepted() -> None:
    findings, impression = "右侧额叶胶质瘤。", "右侧额叶脱髓鞘灶。"
    assert Kind.UNSUPPORTED in loud(findings, impression)
    assert loud(findings, impression, overlay.read({"equivalents.tsv": "脱髓鞘灶\t胶质瘤\n"})) == []


def test_an_unknown_word_may_stand_for_a_known_one() -> None:
    assert stated("侧脑室旁白点症", overlay.read({"equivalents.tsv": "白点症\t脑白质病变\n"})) == ["white_matter"]


def test_a_critical_finding_of_the_department_is_asked_for() -> None:
    findings, impression = "胃底静脉曲张。胆囊结石。", "胆囊结石。"
    assert Kind.CRITICAL not in loud(findings, impression)
    own = overlay.read({"critical.tsv": "varices\t静脉曲张\tvarices@abdomen\tvarices\t术后\n"})
    assert Kind.CRITICAL in loud(findings, impression, own)
    assert Kind.CRITICAL not in loud("胃底静脉曲张术后。胆囊结石。", impression, own)
    assert (has_critical(findings, words=own), has_critical(findings)) == (True, False)


def test_more_evidence_for_a_shipped_critical_finding_leaves_the_shipped_one_as_it_is() -> None:
    own = overlay.read({"critical.tsv": "perforation\t穿孔\tabscess@abdomen\tabscess\n"})
    assert Kind.CRITICAL in loud("膈下见新月形游离气体。肝囊肿。", "肝囊肿。", own)
    assert Kind.CRITICAL in loud("腹腔脓肿。肝囊肿。", "肝囊肿。", own)


def test_the_version_of_the_checks_names_the_department_s_words() -> None:
    own = {"lesions.tsv": "nodule\t\t\t\t小花影\n"}
    assert version(overlay.read(own)) == version(overlay.read(own)) != version()
    assert version(overlay.read({"lesions.tsv": "# none yet\n"})) == version()


def test_an_institution_s_words_come_behind_those_of_all_and_may_build_on_them() -> None:
    every = overlay.read({"lesions.tsv": "blossom\t3\t\tnodule\t花斑病\n"})
    north = overlay.read({"lesions.tsv": "blossom\t\t\t\t花斑样影区\n", "equivalents.tsv": "花斑病\t囊肿\n"}, every)
    assert stated("右肺花斑病，左肺花斑样影区。", north) == ["blossom", "blossom"]
    assert stated("右肺花斑病，左肺花斑样影区。", every) == ["blossom"]
    with pytest.raises(ValueError, match="severity"):
        overlay.read({"lesions.tsv": "blossom\t\t\t\t花斑样影区\n"})


FINDINGS, IMPRESSION = "右侧额叶胶质瘤。", "右侧额叶脱髓鞘灶。"


def test_what_one_institution_takes_for_the_same_another_does_not() -> None:
    north = overlay.read({"equivalents.tsv": "脱髓鞘灶\t胶质瘤\n"})
    standing = [evidence(Pair(FINDINGS, IMPRESSION, words=own)).sentences[0].standing for own in (north, SHIPPED)]
    assert standing == [Standing.SUPPORTED, Standing.UNSUPPORTED]


def test_threads_that_read_at_the_same_time_read_each_with_the_words_of_its_institution() -> None:
    north = overlay.read({"equivalents.tsv": "脱髓鞘灶\t胶质瘤\n"})
    together, found = Barrier(4), dict[int, list[list[Kind]]]()

    def read(number: int) -> None:
        together.wait(10)
        found[number] = [loud(FINDINGS, IMPRESSION, north if number % 2 else SHIPPED) for _ in range(50)]

    threads = [Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[1] == found[3] == [[]] * 50
    assert all(Kind.UNSUPPORTED in kinds for number in (0, 2) for kinds in found[number])


WRONG = [
    ("lesions.tsv", "nodule\t9\t\t\t小花影", "lesions.tsv:1: severity is 0 to 4, not '9'"),
    ("lesions.tsv", "# ours\n\nblossom\t\t\t\t小花影", "lesions.tsv:3: severity"),
    ("lesions.tsv", "blossom\t3\tchest/lnug\t\t小花影", "there is no structure 'chest/lnug'"),
    ("lesions.tsv", "blossom\t3\t\tnodul\t小花影", "there is no finding 'nodul'"),
    ("lesions.tsv", "blossom\t3\t\t\t花", "'花' is one character"),
    ("lesions.tsv", "blossom\t3\t\t\t", "the row has no words"),
    ("lesions.tsv", "blossom 3 小花影", "1 columns between tabs, 5 are needed"),
    ("lesions.tsv", "Blossom\t3\t\t\t小花影", "'Blossom' is no id"),
    ("anatomy.tsv", "chest/pocket/inner\t\t小袋区", "lies in 'chest/pocket', which does not exist"),
    ("anatomy.tsv", "chest/pocket\tz\t小袋区", "flags are"),
    ("anatomy.tsv", "chest/lung~chest/pocket", "there is no structure 'chest/pocket'"),
    ("anatomy.tsv", "胸\t\t小袋区", "is no path"),
    ("critical.tsv", "x\t甲\tnodule\tnodule", "'nodule' is no finding@structure"),
    ("critical.tsv", "x\t甲\tnodule@chest\tnodul", "there is no finding 'nodul'"),
    ("equivalents.tsv", "甲症\t乙症", "neither '甲症' nor '乙症' is a known finding"),
    ("equivalents.tsv", "结节", "1 columns between tabs, 2 are needed"),
    ("surgery.tsv", "x", "surgery.tsv is no file of this folder"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), WRONG)
def test_a_row_that_does_not_fit_is_named_by_file_and_line(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"\.tsv") as caught:
        overlay.read({name: text})
    assert sentence in str(caught.value)


def test_the_shipped_files_are_of_the_form_that_departments_are_held_to() -> None:
    names = [name for name in lexicon.OWN_FILES if name != "equivalents.tsv"]
    texts = {name: lexicon._read(name) for name in names}
    wrong: list[str] = []
    for name, text in texts.items():
        for line in text.splitlines():
            try:
                overlay.read({name: line})
            except ValueError as error:
                wrong.append(str(error))
    assert [
        error for error in wrong if "is one character" not in error
    ] == []  # 肝, 肺: only the shipped ones may be that short
