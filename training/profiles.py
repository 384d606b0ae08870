"""Training profiles as frozen values. `paper` is the published recipe, `recommended` what we would choose, `smoke` minutes on two cores.

Where the paper (arXiv 2310.05242) is silent, the value is ours and `SILENT` says so.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from core.errors import Refused

Targets = Literal["attention", "linear"]
"""Which layers carry LoRA: those of attention, or all linear ones but the output layer, whatever the base calls them."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How to train an adapter.

    An optimizer step sees `batch` × `accumulation` examples. `row_tokens` are the tokens of one packed row (the micro-batch: memory, not
    mathematics), `max_tokens` the longest example, prompt and answer together; a longer one is left out and counted, never cut. `steps`
    ends the run early where `epochs` would go on. `schedule` is how the learning rate falls after `warmup` (a share of the steps).

    `embedding_examples` > 0: first the embeddings alone learn on so many (training.embeddings). `selection_examples` > 0: each of the five
    templates is tried on so many and scored on `selection_scored` others, and the best takes the place of `template` (training.prompts).
    Neither takes more than a tenth of the training set. `merged`: the finished adapter is also written as full-precision weights.
    """

    name: str
    template: str
    rank: int
    alpha: int
    targets: Targets
    learning_rate: float
    schedule: str
    warmup: float
    epochs: int
    batch: int
    row_tokens: int
    max_tokens: int
    accumulation: int = 1
    steps: int | None = None
    seed: int = 0
    embedding_examples: int = 0
    selection_examples: int = 0
    selection_scored: int = 0
    merged: bool = False

    @property
    def examples_per_step(self) -> int:
        """Examples between two updates of the weights."""
        return self.batch * self.accumulation


PAPER = Profile(
    name="paper",
    template="priority",
    rank=64,
    alpha=16,
    targets="attention",
    learning_rate=1.41e-5,
    schedule="linear",
    warmup=0.0,
    epochs=3,
    batch=64,
    accumulation=16,
    row_tokens=4096,
    max_tokens=512,
    embedding_examples=4096,
    selection_examples=4096,
    selection_scored=200,
    merged=True,
)

SILENT = {
    "accumulation": "whether the batch of 64 is meant before or after accumulation: 64 × 16 = 1,024 a step here; set accumulation=1 for 64",
    "max_tokens": "whether 512 limits prompt and answer together or each: together here; what is longer is left out whole and counted",
    "targets": "which layers carry LoRA: the projections of attention here",
    "dropout": "LoRA dropout: none here",
    "quantisation": "which 4-bit type: NF4 with double quantisation here",
    "schedule": "how the learning rate decreases, and warm-up: a straight line to 0 without warm-up here",
    "loss": "whether the prompt is in the loss: the answer and its end only here",
    "embedding_examples": "the size of the small sample on which only embeddings learn, and its prompt: 4,096 over all five templates here, 64 updates",
    "selection_examples": "the size of the short fine-tuning of each prompt: 4,096 examples once here, 64 updates (neither step takes more than a tenth)",
    "selection_scored": "the reports that choose the prompt: 200 of the training part here (the paper took its reported test)",
    "template": "the texts of the five templates: ours",
}
"""What the paper does not say, by field or by name, and what stands in its place here."""

RECOMMENDED = Profile(
    name="recommended",
    template="house",
    rank=64,
    alpha=64,
    targets="linear",
    learning_rate=1e-4,
    schedule="cosine",
    warmup=0.03,
    epochs=3,
    batch=64,
    row_tokens=4096,
    max_tokens=2048,
)

SMOKE = Profile(
    name="smoke",
    template="brief",
    rank=8,
    alpha=16,
    targets="linear",
    learning_rate=2e-3,
    schedule="cosine",
    warmup=0.1,
    epochs=100,
    batch=8,
    row_tokens=512,
    max_tokens=384,
    steps=40,
)

PROFILES = {profile.name: profile for profile in (PAPER, RECOMMENDED, SMOKE)}


def profile(name: str, **changes: object) -> Profile:
    """The profile of that name with `changes` to its fields. Raises Refused for an unknown name or field, or a value of another kind."""
    if name not in PROFILES:
        raise Refused(f"There is no training profile called {name}; there are {', '.join(PROFILES)}.")
    known = PROFILES[name]
    values: dict[str, Any] = {}
    for field, value in changes.items():
        if field not in asdict(known):
            raise Refused(f"A training profile has no such option: {field}.")
        values[field] = _fitting(field, getattr(known, field), value)
    return replace(known, **values)


def _fitting(field: str, now: object, value: object) -> object:
    """The value as the field keeps it; `now` shows the kind, and None stands for a number of steps."""
    if field == "targets" and value not in get_args(Targets):
        raise Refused(f"targets is {' or '.join(get_args(Targets))}, not {value!r}.")
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not (int if now is None else type(now)) and not (field == "steps" and value is None):
        raise Refused(f"{value!r} is no value for the option {field} of a training profile, which is {now!r}.")
    return value
