"""Small builders that the tests of several packages share: an institution, a request, a keyed actor."""

from typing import Any

from sqlmodel import Session

from core import institutions, requests
from core.identity import Keyring
from core.requests import Accepted, Actor
from core.settings import QueueSettings

QUEUE = QueueSettings()
SYSTEM = Actor("key", "ris", "system", "north")
ADMIN = Actor("key", "boss", "admin", None)
DOCTOR = Actor("user", "dr-li", "radiologist", "north")
FINDINGS = "右肺上叶见实性小结节影，长径约6mm。左侧胸腔见弧形水样影。纵隔淋巴结不大。"


def institution(session: Session, code: str = "north", **profile: Any) -> None:
    """An institution as its file would describe it."""
    institutions.sync(session, {code: institutions.Profile(code=code, name=f"{code} hospital", **profile)})
    session.flush()


def body(**changes: Any) -> dict[str, Any]:
    """The body of a request."""
    return {
        "institution": "north",
        "accession": "A-1",
        "modality": "CT",
        "body_part": "chest",
        "patient": {"id": "P-1", "sex": "F", "age": 61},
        "findings": FINDINGS,
        "priority": "routine",
        **changes,
    }


def accept(session: Session, keyring: Keyring, actor: Actor = SYSTEM, **changes: Any) -> Accepted:
    """A request through the door."""
    return requests.accept(session, keyring, requests.parse(body(**changes)), actor, door="http", queue=QUEUE)
