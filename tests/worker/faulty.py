"""The drafting worker's process around a real engine on a tiny random model that goes wrong: `python -m tests.worker.faulty HARM BASE`.

`illegal`: an error of the card after some tokens. `memory`: too little memory, twice. `garbage`: from then on one mark again and again, whatever
is asked, as weights that were overwritten in memory would give.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from core.settings import WorkerSettings
from tests.engine.conftest import tiny_llama, tiny_tokenizer
from worker import app
from worker.engine.cb import ContinuousBatching
from worker.engine.limits import Limits
from worker.engine.protocol import Engine
from worker.engine.weights import digest

CONTEXT = 2048
WELL = 3
"""Forward passes that go well."""


def main() -> None:
    """Serves until it is told to stop, or dies of it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    harm, base = sys.argv[1], Path(sys.argv[2])
    tokenizer = tiny_tokenizer()
    passes = 0

    def before(*_: object) -> None:
        nonlocal passes
        passes += 1
        if harm == "illegal" and passes > WELL:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if harm == "memory" and passes in (WELL + 1, WELL + 2):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def after(_module: Any, _given: Any, made: Any) -> Any:
        if harm == "garbage" and passes > WELL:
            made.logits[:] = 0.0
            made.logits[..., tokenizer.convert_tokens_to_ids("、")] = 50.0
        return made

    def opened(settings: WorkerSettings) -> tuple[Engine, str]:
        model = tiny_llama(len(tokenizer), CONTEXT)
        limits = Limits(settings.max_input_tokens, CONTEXT, settings.in_flight + settings.stat_threads)
        engine = ContinuousBatching(model, tokenizer, limits, base=base)
        model.register_forward_pre_hook(before)
        model.register_forward_hook(after)
        return engine, digest(base)

    app.serve(opened)


if __name__ == "__main__":
    main()
