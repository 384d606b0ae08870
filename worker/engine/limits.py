"""How much an engine takes. What does not fit is refused whole, before a backend sees it: findings and answer are never cut."""

from dataclasses import dataclass

from core.errors import InputTooLong
from worker.engine.protocol import Job


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens of a prompt, tokens of a prompt and its answer together, and jobs at once."""

    prompt_tokens: int
    total_tokens: int
    in_flight: int

    def require(self, job: Job, prompt_tokens: int) -> None:
        """Raises InputTooLong when the job's prompt of so many tokens does not fit, alone or with the longest answer it may get."""
        if prompt_tokens > self.prompt_tokens or prompt_tokens + job.options.max_new_tokens > self.total_tokens:
            raise InputTooLong(
                f"Job {job.id}: {prompt_tokens} prompt tokens and {job.options.max_new_tokens} new ones; this engine takes "
                f"{self.prompt_tokens} and {self.total_tokens} together"
            )
