"""Writes docs/states.md from core.states: `python -m admin.states_doc`. A test holds the file to what this renders.

Only says what the enums and the table of moves say; whatever else there is to know about a state belongs into its sentence there.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Protocol, cast

from core.states import CLOSED, MOVES, SETTLED, UNCLOSED, AttemptState, Reason, ReportStatus, RequestState, RunState

TARGET = Path(__file__).resolve().parent.parent / "docs" / "states.md"

_HEAD = """\
# States

*Written by `python -m admin.states_doc` from `core/states.py`; change the sentences and moves there.*

A request is **settled** when the radiologist has an answer (a draft, or the reason why there is none) and **closed** when no answer is
needed any more. Every request settles. A move that is not in the table below raises; `core.db.move` is the only place that makes one.
"""

_KINDS: tuple[tuple[str, type[StrEnum]], ...] = (
    ("Why there is no draft", Reason),
    ("How one lease of a request ended", AttemptState),
    ("Where a training run stands", RunState),
    ("What an institution says of a report, weakest first", ReportStatus),
)


class _Told(Protocol):
    sentence: str


def render() -> str:
    """The whole page."""
    parts = [_HEAD, "## Requests\n", _diagram(), _requests()]
    parts += [f"## {title}\n\n{_sentences(kind)}" for title, kind in _KINDS]
    return "\n".join(parts)


def _diagram() -> str:
    """The moves as a Mermaid state diagram; what every unclosed state may do is one arrow from their box."""
    shared = {to for to in RequestState if all(to in MOVES[state] for state in UNCLOSED)}
    inside = [state for state in RequestState if state in UNCLOSED]
    lines = ["```mermaid", "stateDiagram-v2", "    state unclosed {", f"        [*] --> {RequestState.QUEUED}"]
    lines += [f"        {state} --> {to}" for state in inside for to in _ordered(MOVES[state] - shared)]
    lines += ["    }"]
    lines += [f"    unclosed --> {to}" for to in _ordered(shared)]
    lines += [f"    {state} --> {to}" for state in _ordered(CLOSED) for to in _ordered(MOVES[state])]
    lines += [f"    {state} --> [*]" for state in _ordered(CLOSED) if not MOVES[state]]
    return "\n".join([*lines, "```", ""])


def _requests() -> str:
    rows = [
        f"| `{state}` | {'settled' if state in SETTLED else 'closed' if state in CLOSED else ''} | {_sentence(state)}"
        f" | {', '.join(f'`{to}`' for to in _ordered(MOVES[state])) or 'nowhere'} |"
        for state in RequestState
    ]
    return "\n".join(["| state | | meaning | may move to |", "|---|---|---|---|", *rows, ""])


def _sentences(kind: type[StrEnum]) -> str:
    rows = [f"| `{member}` | {_sentence(member)} |" for member in kind]
    return "\n".join(["| value | meaning |", "|---|---|", *rows, ""])


def _sentence(member: StrEnum) -> str:
    return cast(_Told, member).sentence


def _ordered(states: Iterable[RequestState]) -> list[RequestState]:
    return sorted(states, key=list(RequestState).index)


def main() -> None:
    """Writes the page."""
    TARGET.write_text(render(), "utf-8")


if __name__ == "__main__":
    main()
