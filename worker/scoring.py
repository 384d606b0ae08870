"""A sign-off to its score: the draft against the signed text. Scores are append-only per scorer version; scoring twice adds nothing."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from clinical.score import SCORER_VERSION, score
from core.db import new_id, transaction
from core.requests import OWED
from core.tables import Draft, DraftRequest, ScoreRow, SignOff


def score_sign_off(database: sa.Engine, sign_off_id: UUID) -> bool:
    """Scores a sign-off and stores it; False when there is nothing to score or it has today's score already.

    A draft that we owed and did not make is scored as the empty text, 0.
    """
    with transaction(database) as session:
        sign_off = session.get(SignOff, sign_off_id)
        if sign_off is None:
            return False
        draft = None if sign_off.draft_id is None else session.get(Draft, sign_off.draft_id)
        request = session.get(DraftRequest, sign_off.request_id)
    if draft is None and (request is None or request.reason not in OWED):
        return False
    result = score("" if draft is None else draft.impression, sign_off.impression)
    detail = result.as_json()
    row = {
        "id": new_id(),
        "sign_off_id": sign_off.id,
        "draft_id": None if draft is None else draft.id,
        "scorer": SCORER_VERSION,
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
