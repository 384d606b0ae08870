"""The exception tree, sorted by what to do: tell the person (`Refused`), try again later (`Retryable`), page someone (`Broken`).

Messages hold ids and rules, never report text, names or numbers of a patient.
"""


class ValuerError(Exception):
    """Base of every error that we raise on purpose. `code` is stable and machine-readable; the message is one sentence for a person."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class Refused(ValuerError):
    """The request cannot be granted and asking again unchanged will not help. `status` is the HTTP status of the same fact."""

    code = "refused"
    status = 422


class Invalid(Refused):
    """What was sent does not fit the form."""

    code = "invalid"
    status = 422


class Unauthenticated(Refused):
    """Nobody we know sent this."""

    code = "unauthenticated"
    status = 401


class Forbidden(Refused):
    """We know who sent this, and their role may not."""

    code = "forbidden"
    status = 403


class NotFound(Refused):
    """There is no such thing, or it belongs to another institution (the answer is the same on purpose)."""

    code = "not_found"
    status = 404


class Conflict(Refused):
    """The thing has moved on since it was last looked at."""

    code = "conflict"
    status = 409


class InputTooLong(Refused):
    """The prompt and the longest allowed answer do not fit the model together."""

    code = "too_long"


class Retryable(ValuerError):
    """It failed for a reason that passes: back to queued, not before `retry_after` seconds."""

    code = "retry"
    status = 503

    def __init__(self, message: str, *, retry_after: float = 5.0, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class EngineRestarting(Retryable):
    """The engine stopped under this job; another process will do it."""

    code = "engine_restarting"


class OutOfMemory(Retryable):
    """The memory of the card did not suffice, not even with fewer jobs at once."""

    code = "out_of_memory"


class DeadlinePassed(Retryable):
    """The generation did not end within its own deadline."""

    code = "deadline"


class Broken(ValuerError):
    """Something of ours is wrong and a person has to look: a corrupt model, a missing key, a schema of another version."""

    code = "broken"
    status = 500
