"""The `[institution]` table of each institution's TOML file: who it is, what it allows, how it signs.

The file's `[source]` table is ingest's alone. The profile is copied into the database, so that processes on other machines need no file.
"""

import re
import shutil
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, select

from clinical.style import Style
from core import audit, stages
from core.errors import Conflict, Invalid, NotFound
from core.stages import Stage
from core.tables import Institution

CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SignMode = Literal["accept_here_sign_in_ris", "sign_here"]
GATE = ("floor_rl", "floor_fact_f1", "p95_s")
"""What a department may ask of any version that is to serve it: least mean ROUGE-L and fact F1 (0-1), slowest twentieth of drafts in seconds."""
MOST_HELD_BACK = 0.05
"""Largest share of requests whose drafts may be hidden for measuring's sake."""
Language = Literal["zh-Hans", "zh-Hant", "en", "fr"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One institution. `role` says whether its train part may be used for training (the paper: institution 1 only); with `role_from`, an ISO date,
    it counts from that day on, and the other role before. The test part is the same under either."""

    code: str
    name: str
    language: str = "zh-Hans"
    sandbox: bool = False
    sign: str = "accept_here_sign_in_ris"
    intake: bool = False
    callback_hosts: tuple[str, ...] = ()
    role: str = "test"
    role_from: str = ""
    style: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    out_of_scope: str = "mark"
    scope_minimum: int = 1
    hold_back: float = 0.0
    confirm_red: bool = False
    gate: dict[str, float] = field(default_factory=dict)

    def role_on(self, day: date) -> str:
        """The role on a day."""
        if self.role_from and day < date.fromisoformat(self.role_from):
            return "test" if self.role == "train" else "train"
        return self.role


_ALLOWED = {
    "language": get_args(Language),
    "sign": get_args(SignMode),
    "role": ("train", "test"),
    "out_of_scope": ("mark", "withhold"),
}
_KINDS: dict[str, type] = {
    "sandbox": bool,
    "intake": bool,
    "callback_hosts": list,
    "style": dict,
    "gate": dict,
    "stages": dict,
    "scope_minimum": int,
    "hold_back": float,
    "confirm_red": bool,
}


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
    if isinstance(table.get("role_from"), date):
        table["role_from"] = table["role_from"].isoformat()[:10]
    for key, value in table.items():
        where = f"{path.name}:{_line(text, key)}"
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            raise Invalid(f"{where}: [institution] has no setting called {key}; {hint}")
        if key in _ALLOWED and value not in _ALLOWED[key]:
            raise Invalid(f"{where}: {key} must be one of {', '.join(_ALLOWED[key])}.")
        wanted = _KINDS.get(key, str)
        if not isinstance(value, wanted):
            raise Invalid(f"{where}: {key} must be a {wanted.__name__}.")
        if key == "role_from":
            try:
                date.fromisoformat(str(value))
            except ValueError:
                raise Invalid(f"{where}: role_from must be a date such as 2026-01-01.") from None
    for key, value in table.get("stages", {}).items():
        if (wrong := stages.fault(key, value)) is not None:
            raise Invalid(f"{path.name}:{_line(text, key)}: {wrong}")
    if not 0 <= table.get("hold_back", 0.0) <= MOST_HELD_BACK:
        raise Invalid(f"{path.name}:{_line(text, 'hold_back')}: hold_back must be between 0 and {MOST_HELD_BACK}.")
    for key in ("code", "name"):
        if not table.get(key):
            raise Invalid(f"{path.name}:1: [institution] must name its {key}.")
    if not CODE.fullmatch(table["code"]):
        raise Invalid(f"{path.name}:{_line(text, 'code')}: code must be lower-case letters, digits and hyphens.")
    try:
        Style.of(table.get("style", {}))
    except ValueError as error:
        raise Invalid(f"{path.name}:{_line(text, '[institution.style]')}: {error}") from None
    for key, value in table.get("gate", {}).items():
        if key not in GATE or isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            where = f"{path.name}:{_line(text, key)}"
            raise Invalid(f"{where}: [institution.gate] takes a number not below 0 for each of {', '.join(GATE)}.")
    return Profile(**{**table, "callback_hosts": tuple(table.get("callback_hosts", ()))})


def load_profiles(folder: Path) -> dict[str, Profile]:
    """Every institution of the folder by its code; an absent folder has none.

    Raises:
        Invalid: a file is not valid; the message names file and line.
    """
    found, faults = look(folder)
    if faults:
        raise next(iter(faults.values()))
    return {profile.code: profile for profile in found.values()}


def look(folder: Path) -> tuple[dict[Path, Profile], dict[Path, Invalid]]:
    """Every institution of the folder by its file, and what is wrong with the files that are not valid: one of them hides no other."""
    found: dict[Path, Profile] = {}
    faults: dict[Path, Invalid] = {}
    for path in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
        try:
            profile = _profile(path)
            if profile.code in {other.code for other in found.values()}:
                raise Invalid(f"{path.name}: the code {profile.code} is taken by another file.")
            found[path] = profile
        except Invalid as error:
            faults[path] = error
        except (OSError, UnicodeDecodeError) as error:
            faults[path] = Invalid(f"{path.name}: the file cannot be read ({type(error).__name__}).")
    return found, faults


def set_stage(folder: Path, code: str, key: str, to: str) -> tuple[Stage, Profile]:
    """Changes one line of `[institution.stages]` in an institution's file; returns the stage before, and the profile as it is now.

    Raises:
        Invalid: the examinations or the stage are none, a file is not valid, or the file is written so that the line cannot be changed alone.
        NotFound: no file is of that institution.
        Conflict: from collect to live in one step.
    """
    if (wrong := stages.fault(key, to)) is not None:
        raise Invalid(wrong, code="stage")
    files, faults = look(folder)
    path, profile = next(((path, each) for path, each in files.items() if each.code == code), (None, None))
    if path is None or profile is None:
        unknown = NotFound("There is no file of this institution.", code="unknown_institution")
        raise next(iter(faults.values()), unknown)
    before = stages.of_line(profile.stages, key)
    if (before, Stage(to)) == (Stage.COLLECT, Stage.LIVE):
        raise Conflict(
            "From collect it goes to shadow first, so that somebody has seen the scores.", code="shadow_first"
        )
    text = path.read_text("utf-8")
    after = stages.written(text, key, Stage(to))
    wanted = tomllib.loads(text)
    wanted["institution"].setdefault("stages", {})[key] = to
    try:
        fits = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise Invalid(
            f"{path.name} writes its stages in a way that only a person can change; set {key} there.", code="stage"
        )
    beside = path.with_suffix(".toml.new")
    beside.write_text(after, "utf-8")
    shutil.copymode(path, beside)
    beside.replace(path)
    return before, replace(profile, stages={**profile.stages, key: to})


def sync(session: Session, profiles: dict[str, Profile], *, by: str = "process:institutions") -> None:
    """Copies the profiles into the database; a change of stages is audited as the deed of `by`.

    An institution whose file is gone keeps its row: its reports refer to it."""
    for profile in profiles.values():
        row = {
            "code": profile.code,
            "name": profile.name,
            "language": profile.language,
            "sandbox": profile.sandbox,
            "profile": asdict(profile),
        }
        before = session.get(Institution, profile.code)
        if before is not None and before.profile.get("stages", {}) != profile.stages:
            audit.record(
                session,
                by,
                "institution.stages",
                f"institution:{profile.code}",
                institution=profile.code,
                before=before.profile.get("stages", {}),
                after=profile.stages,
            )
        statement = insert(Institution).values(**row)
        changes = {key: statement.excluded[key] for key in row if key != "code"} | {"updated_at": sa.func.now()}
        session.execute(statement.on_conflict_do_update(index_elements=["code"], set_=changes))


def profile(session: Session, code: str) -> Profile:
    """The profile of an institution. Raises NotFound for an unknown one."""
    row = session.get(Institution, code)
    if row is None:
        raise NotFound("There is no such institution.", code="unknown_institution")
    return stored(row.profile)


def stored(value: dict[str, Any]) -> Profile:
    """The profile as its institution's row has it."""
    return Profile(**{**value, "callback_hosts": tuple(value.get("callback_hosts", ()))})


def roles(session: Session, day: date) -> dict[str, str]:
    """Every institution's role on a day."""
    codes = session.exec(select(Institution.code)).all()
    return {code: profile(session, code).role_on(day) for code in codes}
