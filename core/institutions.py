"""The `[institution]` table of each institution's TOML file: who it is, what it allows, how it signs.

The file's `[source]` table is ingest's alone. The profile is copied into the database, so that processes on other machines need no file.
"""

import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from clinical.style import Style
from core.errors import Invalid, NotFound
from core.tables import Institution

CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SignMode = Literal["accept_here_sign_in_ris", "sign_here"]
Language = Literal["zh-Hans", "zh-Hant", "en", "fr"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One institution. `role` says whether its train part may be used for training (the paper: institution 1 only)."""

    code: str
    name: str
    language: str = "zh-Hans"
    sandbox: bool = False
    sign: str = "accept_here_sign_in_ris"
    intake: bool = False
    callback_hosts: tuple[str, ...] = ()
    role: str = "test"
    style: dict[str, Any] = field(default_factory=dict)


_ALLOWED = {"language": get_args(Language), "sign": get_args(SignMode), "role": ("train", "test")}


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == key or re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
            return number
    return 1


def _profile(path: Path) -> Profile:
    text = path.read_text("utf-8")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path.name}: {error}") from None
    table = data.get("institution")
    if not isinstance(table, dict):
        raise Invalid(f"{path.name}:1: there is no [institution] table.")
    known = {f.name: f for f in fields(Profile)}
    for key, value in table.items():
        where = f"{path.name}:{_line(text, key)}"
        if key not in known:
            raise Invalid(f"{where}: [institution] has no setting called {key}; it has {', '.join(known)}.")
        if key in _ALLOWED and value not in _ALLOWED[key]:
            raise Invalid(f"{where}: {key} must be one of {', '.join(_ALLOWED[key])}.")
        wanted: type = {"sandbox": bool, "intake": bool, "callback_hosts": list, "style": dict}.get(key, str)
        if not isinstance(value, wanted):
            raise Invalid(f"{where}: {key} must be a {wanted.__name__}.")
    for key in ("code", "name"):
        if not table.get(key):
            raise Invalid(f"{path.name}:1: [institution] must name its {key}.")
    if not CODE.fullmatch(table["code"]):
        raise Invalid(f"{path.name}:{_line(text, 'code')}: code must be lower-case letters, digits and hyphens.")
    try:
        Style.of(table.get("style", {}))
    except ValueError as error:
        raise Invalid(f"{path.name}:{_line(text, '[institution.style]')}: {error}") from None
    return Profile(**{**table, "callback_hosts": tuple(table.get("callback_hosts", ()))})


def load_profiles(folder: Path) -> dict[str, Profile]:
    """Every institution of the folder by its code; an absent folder has none.

    Raises:
        Invalid: a file is not valid; the message names file and line.
    """
    found: dict[str, Profile] = {}
    for path in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
        profile = _profile(path)
        if profile.code in found:
            raise Invalid(f"{path.name}: the code {profile.code} is taken by another file.")
        found[profile.code] = profile
    return found


def sync(session: Session, profiles: dict[str, Profile]) -> None:
    """Copies the profiles into the database. An institution whose file is gone keeps its row: its reports refer to it."""
    for profile in profiles.values():
        row = {
            "code": profile.code,
            "name": profile.name,
            "language": profile.language,
            "sandbox": profile.sandbox,
            "profile": asdict(profile),
        }
        statement = insert(Institution).values(**row)
        changes = {key: statement.excluded[key] for key in row if key != "code"} | {"updated_at": sa.func.now()}
        session.execute(statement.on_conflict_do_update(index_elements=["code"], set_=changes))


def profile(session: Session, code: str) -> Profile:
    """The profile of an institution. Raises NotFound for an unknown one."""
    row = session.get(Institution, code)
    if row is None:
        raise NotFound("There is no such institution.", code="unknown_institution")
    return Profile(**{**row.profile, "callback_hosts": tuple(row.profile.get("callback_hosts", ()))})
