"""A tokenizer that puts each prompt into a model's own conversation template, for rows of the model pool that were made to chat.

The template's control tokens are the model's; those that stand in the findings stay plain text, as everywhere.
"""

from typing import Any

from core.errors import Broken

_PLACE = "\u241f"
"""Stands for the prompt while the template is rendered; no report holds it."""


class Turns:
    """Everything of `tokenizer`, but for a prompt, which becomes a whole user turn with the heading of the answer behind it."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise Broken('The model\'s tokenizer has no chat template; name it as prompt = "plain" in pool.toml.')
        turn = [{"role": "user", "content": _PLACE}]
        rendered = tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        before, after = rendered.split(_PLACE)
        self._inner = tokenizer
        self._before: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
        self._after: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]

    def __call__(self, text: Any, **options: Any) -> Any:
        """As the tokenizer's own, but with `add_special_tokens` set the text is a prompt."""
        if not options.get("add_special_tokens"):
            return self._inner(text, **options)
        words = self._inner(text, **{**options, "add_special_tokens": False})["input_ids"]
        return {"input_ids": [*self._before, *words, *self._after]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
