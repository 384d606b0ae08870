"""The processes of one training run: one alone, or several, each with its own card, that a launcher started.

Each takes its share of a step's rows, and the gradients are summed once per optimizer step; so every process holds the same weights, and
several do what one does. Knows nothing of models or reports.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `count` processes."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """True in the one process that writes checkpoints, rows and artefacts."""
        return self.index == 0

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replaces each tensor by its sum over all processes, which call this together and in the same order."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any of the processes."""
        if self.count == 1:
            return here
        told = torch.tensor([float(here)], device=device)
        self.add([told])
        return bool(told.item())

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Ranks()
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
"""Starts the processes of a run on this machine; what `accelerate launch` itself uses, without its configuration file."""


def command(processes: int, *module: str) -> list[str]:
    """How to run `python -m MODULE ARGUMENTS` in so many processes."""
    several = (*LAUNCHER, str(processes)) if processes > 1 else ()
    return [sys.executable, *several, "-m", *module]


def joined(*, cpu: bool = False) -> Ranks:
    """This process's ranks: alone, unless a launcher said otherwise in the environment; then the group is formed by accelerate."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=cpu)
    return Ranks(state.process_index, state.num_processes)
