"""Departments' vocabulary folders: read at the start of a process, apart for each institution, refused with file and line."""

from pathlib import Path

import pytest

from clinical.checks import check
from clinical.department import SHIPPED
from clinical.issues import Kind, Pair
from clinical.non_essential import shipped
from clinical.score import score
from core import vocabulary
from core.errors import Refused
from core.vocabulary import Vocabulary

HERE = "vocabulary"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / HERE / "north").mkdir(parents=True)
    return tmp_path / HERE


def test_without_a_folder_the_shipped_words_are_used(tmp_path: Path) -> None:
    assert vocabulary.of(tmp_path, "north") == Vocabulary(SHIPPED, shipped())


def test_files_of_the_folder_are_for_all_and_those_of_a_folder_in_it_for_one_institution(folder: Path) -> None:
    (folder / "lesions.tsv").write_text("\ufeff# ours\nnodule\t\t\t\t小花影\n", "utf-8")
    (folder / "north" / "equivalents.tsv").write_text("胶质瘤\t脱髓鞘灶\n", "utf-8")
    north, south = (vocabulary.of(folder.parent, code).words for code in ("north", "south"))
    for words in (north, south):
        assert [issue.kind for issue in check(Pair("右肺上叶小花影。", "左肺上叶结节。", words=words))] == [Kind.SIDE]
    findings, impression = "右侧额叶胶质瘤。", "右侧额叶脱髓鞘灶。"
    assert check(Pair(findings, impression, words=north)) == ()
    assert score(impression, findings, words=north).fact_f1 == 1
    assert (score(impression, findings, words=south).fact_f1 or 0) < 1
    assert len({score(impression, findings, words=words).scorer for words in (north, south, SHIPPED)}) == 3


def test_phrases_of_the_folder_and_of_the_institution_go_with_the_shipped_ones(folder: Path) -> None:
    phrases = '[[reason]]\nname = "archive"\ntexts = ["{}"]\n'
    (folder / "non_essential.toml").write_text(phrases.format("本科室存档"), "utf-8")
    (folder / "north" / "non_essential.toml").write_text(phrases.format("底片已借出"), "utf-8")
    text = "左肺结节。本科室存档。底片已借出。以下空白"
    assert vocabulary.of(folder.parent, "north").phrases.removed(text)[0] == "左肺结节。"
    assert vocabulary.of(folder.parent, "south").phrases.removed(text)[0] == "左肺结节。底片已借出。"


def test_a_phrase_may_name_no_finding_that_the_department_itself_has_added(folder: Path) -> None:
    (folder / "lesions.tsv").write_text("nodule\t\t\t\t小花影\n", "utf-8")
    (folder / "non_essential.toml").write_text('[[reason]]\nname = "x"\ntexts = ["见小花影"]\n', "utf-8")
    with pytest.raises(Refused, match="names a structure or a finding"):
        vocabulary.load(folder.parent)


def test_a_wrong_row_stops_the_process_with_its_file_and_line(folder: Path) -> None:
    path = folder / "north" / "lesions.tsv"
    path.write_text("nodule\t\t\t\t小花影\nnodule\t7\t\t\t小叶影\n", "utf-8")
    with pytest.raises(Refused, match=r"vocabulary/north/lesions\.tsv:2: severity is 0 to 4"):
        vocabulary.load(folder.parent)
    path.write_bytes("nodule\t\t\t\t小花影\n".encode("gb18030"))
    with pytest.raises(Refused, match=r"is not UTF-8"):
        vocabulary.load(folder.parent)


def test_a_file_that_nobody_reads_is_refused_since_its_writer_believes_that_it_holds(folder: Path) -> None:
    (folder / "lesion.tsv").write_text("nodule\t\t\t\t小花影\n", "utf-8")
    with pytest.raises(Refused, match=r"vocabulary/lesion\.tsv: the files are anatomy\.tsv, lesions\.tsv"):
        vocabulary.load(folder.parent)
