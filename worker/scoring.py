"""A sign-off to its score: the draft against the signed text. Scores are append-only per scorer version; scoring twice adds nothing."""

from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from clinical.checks import check
from clinical.issues import Pair
from clinical.score import score
from core import vocabulary
from core.db import new_id, transaction
from core.sign_offs import OWED
from core.tables import Draft, DraftRequest, ScoreRow, SignOff, Withdrawal


def score_sign_off(database: sa.Engine, sign_off_id: UUID, home: Path) -> bool:
    """Scores a sign-off and stores it; False when there is nothing to score or it has today's score already.

    Its institution's words, from the data root `home`, count in the facts.
    A draft that we owed and did not make is scored as the empty text, 0. What the checks notice in the signed text is stored beside it, by
    kind and without words: where signed texts raise flags, the checks err or the reports do.
    """
    with transaction(database) as session:
        sign_off = session.get(SignOff, sign_off_id)
        if sign_off is None or session.get(Withdrawal, sign_off_id) is not None:
            return False
        draft = None if sign_off.draft_id is None else session.get(Draft, sign_off.draft_id)
        request = session.get(DraftRequest, sign_off.request_id)
    if request is None or (draft is None and request.reason not in OWED):
        return False
    words = vocabulary.of(home, request.institution).words
    drafted = "" if draft is None else draft.impression
    result = score(drafted, sign_off.impression, language=request.language, words=words)
    signed = Pair(
        request.findings,
        sign_off.impression,
        sex=request.sex,
        modality=request.modality,
        systems=tuple(request.systems),
        prior=request.prior_impression,
        language=request.language,
        words=words,
    )
    noticed = [
        {"kind": issue.kind.value, "severity": issue.severity.value, "rule": issue.rule} for issue in check(signed)
    ]
    detail = {**result.as_json(), "signed_issues": noticed}
    row = {
        "id": new_id(),
        "sign_off_id": sign_off.id,
        "draft_id": None if draft is None else draft.id,
        "scorer": result.scorer,
        "r1": result.r1,
        "r2": result.r2,
        "rl": result.rl,
        "char_rl": result.char_rl,
        "edit_distance": result.edit_distance,
        "fact_f1": result.fact_f1,
        "detail": detail,
    }
    with transaction(database) as session:
        statement = insert(ScoreRow).values(**row).on_conflict_do_nothing(index_elements=["sign_off_id", "scorer"])
        stored = session.execute(statement.returning(ScoreRow.__table__.c.id)).scalar_one_or_none()  # type: ignore[attr-defined]
    return stored is not None
