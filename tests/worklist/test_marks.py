"""Highlights: the whole text, nothing added, nothing lost, wherever the spans lie."""

from hypothesis import given
from hypothesis import strategies as st

from worklist.marks import Piece, Span, pieces, spans


def test_overlapping_spans_are_cut_where_they_begin_and_end() -> None:
    cut = pieces("abcdefg", [Span(1, 5, "amber", 1), Span(3, 6, "red", 2)])
    assert cut == [
        Piece("a", None, (), ()),
        Piece("bc", "amber", (1,), ()),
        Piece("de", "red", (1, 2), (1,)),
        Piece("f", "red", (2,), (2,)),
        Piece("g", None, (), ()),
    ]


def test_a_span_outside_of_the_text_marks_nothing() -> None:
    text = "右肺结节"
    for span in (Span(-1, 2, "red", 1), Span(2, 9, "red", 1), Span(3, 3, "red", 1), Span(3, 1, "red", 1)):
        assert [piece.severity for piece in pieces(text, [span])] == [None]


def test_issues_without_a_span_in_a_text_mark_nothing_there() -> None:
    issues: list[dict[str, object]] = [
        {"severity": "red", "span_findings": None, "span_impression": [0, 2]},
        {"severity": "amber", "span_findings": [1, 3], "span_impression": None},
    ]
    assert spans(issues, "span_findings") == [Span(1, 3, "amber", 2)]
    assert spans(issues, "span_impression") == [Span(0, 2, "red", 1)]


SPANS = st.builds(Span, st.integers(-3, 30), st.integers(-3, 30), st.sampled_from(["red", "amber"]), st.integers(1, 9))


@given(st.text(max_size=25), st.lists(SPANS, max_size=6))
def test_the_pieces_are_the_text(text: str, marked: list[Span]) -> None:
    cut = pieces(text, marked)
    assert "".join(piece.text for piece in cut) == text
    assert all(piece.text for piece in cut)
