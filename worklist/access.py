"""Credentials: systems' API keys, people, their browser sessions, one-time links and tokens. Decides who somebody is, not what they may do.

Only hashes of secrets are stored: SHA-256 of 256 random bits for keys, sessions, links and tokens; Argon2id (RFC 9106) for passwords. Every
function works inside the caller's transaction and never commits.
"""

import hashlib
import hmac
import re
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlmodel import Session, col, select

from core import audit
from core.db import new_id
from core.errors import Conflict, Invalid, NotFound
from core.requests import Actor
from core.tables import ApiKey, AuditEvent, Institution, User, UserSession

KEY_ROLES = ("system", "viewer", "admin")
USER_ROLES = ("radiologist", "admin")
GRADES = ("junior", "intermediate", "senior")
LOGIN = re.compile(r"[a-z0-9][a-z0-9._@-]{1,63}")
SHORTEST_PASSWORD = 10

LONGEST_SESSION = timedelta(hours=24)
"""However busy, a session ends after this; a shift is shorter."""

FAILURE_WINDOW = timedelta(minutes=15)
FAILURES_PER_LOGIN_AND_ADDRESS, FAILURES_PER_LOGIN, FAILURES_PER_ADDRESS = 5, 50, 30
"""Failed sign-ins within the window after which the next ones are not even tried. The middle one is high, so that nobody locks a colleague out."""

_PASSWORDS = PasswordHasher()
"""A verification holds 64 MiB and a good part of a second of one core: whoever lets strangers ask for it keeps them in line (worklist.desk)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request: the actor for core.requests, and by which means they were recognised."""

    actor: Actor
    means: Literal["key", "browser", "token"]
    name: str
    grade: str | None = None
    session_id: uuid.UUID | None = None
    csrf: str | None = None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _hash(secret: str) -> str:
    return _digest(secret).hex()


def _checked(session: Session, role: str, roles: tuple[str, ...], institution: str | None) -> None:
    if role not in roles:
        raise Invalid(f"The role must be one of {', '.join(roles)}.", code="unknown_role")
    if institution is not None and session.get(Institution, institution) is None:
        raise NotFound("There is no such institution.", code="unknown_institution")


# --- keys of systems -----------------------------------------------------------------------------------------------------------


def create_key(session: Session, name: str, role: str, institution: str | None = None, *, by: str) -> str:
    """A new key as `vk_<id>_<secret>`: shown this once, stored as a hash. Only an admin key may be without an institution.

    Raises:
        Invalid: the role is unknown, or a key that is not an admin's names no institution.
        NotFound: there is no such institution.
    """
    _checked(session, role, KEY_ROLES, institution)
    if institution is None and role != "admin":
        raise Invalid(f"A {role} key needs an institution.", code="institution_missing")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    session.add(ApiKey(id=key_id, name=name, role=role, institution=institution, secret_hash=_hash(secret)))
    audit.record(session, by, "key.created", f"key:{key_id}", institution=institution, role=role)
    return f"vk_{key_id}_{secret}"


def list_keys(session: Session) -> list[ApiKey]:
    """Every key, revoked ones too, oldest first."""
    return list(session.exec(select(ApiKey).order_by(col(ApiKey.created_at), col(ApiKey.id))))


def revoke_key(session: Session, key_id: str, *, by: str) -> None:
    """Ends a key at once. Raises NotFound for an unknown one; revoking twice is no error."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("There is no such key.", code="unknown_key")
    if key.revoked_at is None:
        session.execute(sa.update(ApiKey).where(col(ApiKey.id) == key_id).values(revoked_at=sa.func.now()))
        audit.record(session, by, "key.revoked", f"key:{key_id}", institution=key.institution)


def by_key(session: Session, presented: str) -> Caller | None:
    """Whose key this is; None for an unknown, wrong or revoked one."""
    prefix, _, rest = presented.partition("_")
    key_id, _, secret = rest.partition("_")
    key = session.get(ApiKey, key_id) if prefix == "vk" and re.fullmatch(r"[0-9a-f]{16}", key_id) else None
    right = hmac.compare_digest(key.secret_hash if key else _hash(""), _hash(secret))
    if key is None or not right or key.revoked_at is not None:
        return None
    if key.used_at is None or key.used_at < datetime.now(UTC) - timedelta(
        minutes=1
    ):  # for the list only, so our clock will do
        session.execute(sa.update(ApiKey).where(col(ApiKey.id) == key.id).values(used_at=sa.func.now()))
    return Caller(Actor("key", key.id, key.role, key.institution), "key", key.name)


class KnownKeys:
    """Keys that were right a moment ago, by the hash of the header that brought them: a system that sends a hundred requests a second is looked up
    once. A revoked key is refused `lasts` seconds later at the latest. Only right ones are kept, so that strangers cannot fill it."""

    def __init__(self, lasts: float = 1.0) -> None:
        self._lasts = lasts
        self._known: dict[bytes, tuple[float, Caller]] = {}

    def get(self, header: str) -> Caller | None:
        """Whose key this is, when it was kept within the last `lasts` seconds."""
        until, caller = self._known.get(_digest(header), (0.0, None))
        return caller if time.monotonic() < until else None

    def keep(self, header: str, caller: Caller) -> None:
        """Notes that this key is right now."""
        self._known[_digest(header)] = time.monotonic() + self._lasts, caller


# --- people --------------------------------------------------------------------------------------------------------------------


def create_user(
    session: Session,
    login: str,
    display_name: str,
    *,
    by: str,
    role: str = "radiologist",
    grade: str | None = None,
    institution: str | None = None,
    password: str | None = None,
) -> User:
    """A new person. Without a password they enter by one-time links only; without an institution they see all of them.

    Raises:
        Invalid: login, role, grade or password do not fit; the message says how.
        Conflict: the login is taken.
    """
    _checked(session, role, USER_ROLES, institution)
    if not LOGIN.fullmatch(login):
        raise Invalid(
            "A login has 2 to 64 lower-case letters, digits, dots, hyphens, underscores or @.", code="bad_login"
        )
    if grade is not None and grade not in GRADES:
        raise Invalid(f"The grade must be one of {', '.join(GRADES)}.", code="unknown_grade")
    if password is not None and len(password) < SHORTEST_PASSWORD:
        raise Invalid(f"A password has at least {SHORTEST_PASSWORD} characters.", code="short_password")
    if session.exec(select(User.id).where(col(User.login) == login)).first() is not None:
        raise Conflict("This login is taken.", code="login_taken")
    hashed = None if password is None else _PASSWORDS.hash(password)
    user = User(
        login=login, display_name=display_name, password_hash=hashed, role=role, grade=grade, institution=institution
    )
    session.add(user)
    session.flush()
    audit.record(session, by, "user.created", f"user:{user.id}", institution=institution, role=role)
    return user


def list_users(session: Session) -> list[User]:
    """Everybody, disabled people too, by login."""
    return list(session.exec(select(User).order_by(col(User.login))))


def find_user(session: Session, login: str) -> User:
    """The person with this login. Raises NotFound."""
    user = session.exec(select(User).where(col(User.login) == login)).first()
    if user is None:
        raise NotFound("There is no such user.", code="unknown_user")
    return user


def disable_user(session: Session, login: str, *, by: str) -> None:
    """Shuts a person out at once: their sessions, links and tokens end, and none can be opened. Raises NotFound."""
    user = find_user(session, login)
    if user.disabled_at is None:
        session.execute(sa.update(User).where(col(User.id) == user.id).values(disabled_at=sa.func.now()))
        audit.record(session, by, "user.disabled", f"user:{user.id}", institution=user.institution)
    open_ones = sa.and_(col(UserSession.user_id) == user.id, col(UserSession.ended_at).is_(None))
    session.execute(sa.update(UserSession).where(open_ones).values(ended_at=sa.func.now()))


# --- sessions, links and tokens ------------------------------------------------------------------------------------------------


def _open(session: Session, user: User, kind: str, lasts: timedelta) -> str:
    secret = secrets.token_urlsafe(32)
    csrf = secrets.token_urlsafe(24) if kind == "browser" else None
    values = {"id": new_id(), "user_id": user.id, "kind": kind, "secret_hash": _hash(secret), "csrf": csrf}
    session.execute(sa.insert(UserSession).values(**values, expires_at=sa.func.now() + lasts))
    return secret


def create_link(session: Session, user: User, *, by: str, lasts: timedelta = timedelta(hours=24)) -> str:
    """A path below the worklist's address that signs `user` in once: `/enter?link=…`."""
    audit.record(session, by, "link.created", f"user:{user.id}", institution=user.institution)
    return f"/enter?link={_open(session, user, 'link', lasts)}"


def create_token(session: Session, user: User, *, by: str, lasts: timedelta = timedelta(days=30)) -> str:
    """A bearer token `vt_<secret>` with which a script acts as this person."""
    audit.record(session, by, "token.created", f"user:{user.id}", institution=user.institution)
    return f"vt_{_open(session, user, 'token', lasts)}"


def _live(session: Session, secret: str, kind: str) -> tuple[UserSession, User] | None:
    """The open session of this secret with its enabled person; held until the transaction ends, so that a link opens once."""
    query = (
        select(UserSession, User)
        .join(User, col(User.id) == col(UserSession.user_id))
        .where(col(UserSession.secret_hash) == _hash(secret), col(UserSession.kind) == kind)
        .where(
            col(UserSession.ended_at).is_(None),
            col(UserSession.expires_at) > sa.func.now(),
            col(User.disabled_at).is_(None),
        )
    )
    return session.exec(query.with_for_update(of=UserSession) if kind == "link" else query).first()


def _caller(row: UserSession, user: User, means: Literal["browser", "token"]) -> Caller:
    actor = Actor("user", str(user.id), user.role, user.institution)
    return Caller(actor, means, user.display_name, user.grade, row.id, row.csrf)


def by_token(session: Session, presented: str) -> Caller | None:
    """Whose token this is; None for an unknown, ended or expired one."""
    found = _live(session, presented.removeprefix("vt_"), "token")
    return None if found is None else _caller(*found, "token")


def by_session(session: Session, secret: str, lasts: timedelta | None) -> Caller | None:
    """Whose browser session this is. It lasts for another `lasts` from now, up to LONGEST_SESSION in all; None: this is no use of it."""
    found = _live(session, secret, "browser")
    if found is None:
        return None
    row, user = found
    if lasts is not None:
        stale = sa.or_(
            col(UserSession.used_at).is_(None), col(UserSession.used_at) < sa.func.now() - timedelta(minutes=1)
        )
        until = sa.func.least(sa.func.now() + lasts, col(UserSession.created_at) + LONGEST_SESSION)
        session.execute(
            sa.update(UserSession)
            .where(col(UserSession.id) == row.id, stale)
            .values(used_at=sa.func.now(), expires_at=until)
        )
    return _caller(row, user, "browser")


def still_open(session: Session, caller: Caller) -> bool:
    """Whether the credential that `caller` came with has neither ended nor expired; for streams, which outlive their first look."""
    if caller.session_id is None:
        return (
            session.exec(
                select(ApiKey.id).where(col(ApiKey.id) == caller.actor.id, col(ApiKey.revoked_at).is_(None))
            ).first()
            is not None
        )
    query = select(UserSession.id).where(col(UserSession.id) == caller.session_id)
    query = query.where(col(UserSession.ended_at).is_(None), col(UserSession.expires_at) > sa.func.now())
    return session.exec(query).first() is not None


def enter(session: Session, link: str, lasts: timedelta) -> str | None:
    """Spends a one-time link: the secret of a new browser session, or None when it is spent, expired or unknown."""
    found = _live(session, link, "link")
    if found is None:
        return None
    row, user = found
    session.execute(
        sa.update(UserSession)
        .where(col(UserSession.id) == row.id)
        .values(used_at=sa.func.now(), ended_at=sa.func.now())
    )
    audit.record(
        session, f"user:{user.id}", "user.signed_in", f"user:{user.id}", institution=user.institution, by="link"
    )
    return _open(session, user, "browser", lasts)


def sign_out(session: Session, caller: Caller) -> None:
    """Ends the browser session that `caller` came with."""
    session.execute(
        sa.update(UserSession).where(col(UserSession.id) == caller.session_id).values(ended_at=sa.func.now())
    )
    audit.record(session, str(caller.actor), "user.signed_out", str(caller.actor), institution=caller.actor.institution)


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a try to sign in ended: the secret of a new session, or none and how long to wait before the next try counts."""

    secret: str | None
    wait: timedelta | None = None


def sign_in(session: Session, login: str, password: str, address: str, lasts: timedelta) -> SignIn:
    """Tries a password. A failure is recorded in this transaction, so the caller must commit it too and only then refuse.

    Failures are counted in the audit log, where they are written anyway, by a digest of the login: people type passwords into that field.
    """
    subject = f"login:{_hash(login)[:16]}"
    guesses_wait_in_line = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(subject, 0)))
    session.execute(guesses_wait_in_line)
    if _too_many_failures(session, subject, address):
        return SignIn(None, FAILURE_WINDOW)
    user = None
    if LOGIN.fullmatch(login):  # whatever else was typed is nobody's, and may be no text for the database
        user = session.exec(select(User).where(col(User.login) == login, col(User.disabled_at).is_(None))).first()
    if _verified(user, password) and user is not None:
        audit.record(
            session,
            f"user:{user.id}",
            "user.signed_in",
            f"user:{user.id}",
            institution=user.institution,
            by="password",
            address=address,
        )
        return SignIn(_open(session, user, "browser", lasts))
    audit.record(session, "nobody", "user.sign_in_failed", subject, address=address)
    return SignIn(None)


@cache
def _no_password() -> str:
    """Verified for people who are unknown or have no password, so that they take as long as others."""
    return _PASSWORDS.hash(secrets.token_hex(16))


def _verified(user: User | None, password: str) -> bool:
    stored = None if user is None else user.password_hash
    try:
        _PASSWORDS.verify(stored or _no_password(), password.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def _too_many_failures(session: Session, subject: str, address: str) -> bool:
    same_login = col(AuditEvent.subject) == subject
    same_address = col(AuditEvent.detail)["address"].astext == address
    query = sa.select(
        sa.func.count().filter(sa.and_(same_login, same_address)),
        sa.func.count().filter(same_login),
        sa.func.count().filter(same_address),
    ).where(col(AuditEvent.id) >= _first_id_after(FAILURE_WINDOW), col(AuditEvent.action) == "user.sign_in_failed")
    both, of_login, of_address = session.execute(query).one()
    return bool(
        both >= FAILURES_PER_LOGIN_AND_ADDRESS or of_login >= FAILURES_PER_LOGIN or of_address >= FAILURES_PER_ADDRESS
    )


def _first_id_after(window: timedelta) -> uuid.UUID:
    """The smallest UUIDv7 made within the last `window`; event ids are in order of time, so their primary key is the index for it."""
    milliseconds = (new_id().int >> 80) - int(window.total_seconds() * 1000)
    return uuid.UUID(int=milliseconds << 80)
