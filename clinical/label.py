"""The label of a draft (AI 草稿，须医师审核): whether a text that a person signed still carries it. Who shows it where is not decided here."""

import re

_LABEL = re.compile(
    r"AI\s*草稿|须医师审核|須醫師審核|AI draft, for review|Brouillon IA|relire par un médecin", re.IGNORECASE
)


def left_over(text: str) -> bool:
    """Whether any part of a draft's label stands in `text`: such a text raises an alarm and never trains."""
    return _LABEL.search(text) is not None
