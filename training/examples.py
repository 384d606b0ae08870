"""Signed cases to token ids: the very prompt that serving renders, then the signed impression and the end of sequence."""

from collections.abc import Iterable
from typing import Any

from training.dataset import Case
from training.packing import Example
from training.profiles import Profile
from worker.engine.weights import encode
from worker.prompt import model_text, render


def example(tokenizer: Any, template: str, case: Case) -> Example:
    """One case. The answer is in the one form that models write; the house's own is put on when a draft is served (clinical.style).

    Prompt and answer are tokenised apart, as they are when the model serves; control tokens inside texts stay text.
    """
    said = model_text(case.signed, language=case.input.language).strip()
    answer = tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    prompt = tuple(encode(tokenizer, render(template, case.input).text))
    return Example(prompt, (*answer, tokenizer.eos_token_id), case.weight)


def examples(
    tokenizer: Any, profile: Profile, cases: Iterable[Case], *, template: str | None = None
) -> tuple[list[Example], int]:
    """Those that fit `profile.max_tokens`, and how many do not: they are left out whole, since a cut impression teaches to stop midway.

    `template` takes the place of the profile's.
    """
    encoded = [example(tokenizer, template or profile.template, case) for case in cases]
    fitting = [one for one in encoded if len(one) <= profile.max_tokens]
    return fitting, len(encoded) - len(fitting)
