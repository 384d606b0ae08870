"""What to do when a micro-batch does not fit in memory: halve it, then recompute activations, then say so. Changes no result.

A row of fewer tokens, or a forward pass done twice, gives the same gradient; only the time changes.
"""

import logging
from typing import Any

import torch

from core import logs
from core.errors import Broken


class Memory:
    """How many tokens a packed row of `model` may have in this run, from the profile's number down."""

    def __init__(self, model: Any, row_tokens: int) -> None:
        self._model = model
        self.row_tokens = row_tokens
        self._recomputes = False

    def tighten(self, longest: int) -> None:
        """Takes the next measure after a step whose longest example has so many tokens ran out of memory.

        Raises:
            Broken: not even one example at a time with recomputed activations fits.
        """
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.row_tokens > longest:
            self.row_tokens = max(longest, self.row_tokens // 2)
            logs.event("training_row_halved", level=logging.WARNING, row_tokens=self.row_tokens)
        elif not self._recomputes:
            self._model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            self._recomputes = True
            logs.event("training_recomputes", level=logging.WARNING, row_tokens=self.row_tokens)
        else:
            raise Broken(
                f"An example of {longest} tokens does not fit in memory, even alone and with recomputed activations; "
                "train with a smaller max_tokens, a smaller base model or a larger card."
            )
