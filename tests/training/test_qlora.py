"""The training loop on a tiny random Llama in fp32, where equal means equal, and on the real 4-bit demo base where that is the point."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional

from core.errors import Broken
from tests.engine.test_architectures import Maker, falcon, gemma3, glm, llama, qwen3
from tests.training.tiny import EOS, quick, some_examples, tiny
from training import ranks
from training.packing import Example, pack, row, steps_of_epoch
from training.profiles import PAPER
from training.qlora import (
    add_lora,
    learning_rate,
    mean_loss,
    packing_capacity,
    summed_loss,
    total_steps,
    train,
    trainable,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers for it


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices of 64 columns are quicker without threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_loss_of_packed_examples_is_the_sum_of_their_own_losses() -> None:
    model = tiny()
    examples = some_examples(5)
    together = summed_loss(model, row(examples))
    apart = torch.stack([summed_loss(model, row([example])) for example in examples]).sum()
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)


def test_the_loss_is_over_the_answer_and_its_end_and_nothing_of_the_prompt() -> None:
    model = tiny()
    [example] = some_examples(1)
    ids = torch.tensor([[*example.prompt, *example.answer]])
    logits = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
    expected = functional.cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
    assert example.answer[-1] == EOS
    assert summed_loss(model, row([example])).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_examples_weight_is_its_share_of_the_loss() -> None:
    model = tiny()
    one, other = some_examples(2)
    apart = [summed_loss(model, row([example])).item() for example in (one, other)]
    together = summed_loss(model, row([one, replace(other, weight=0.5)])).item()
    assert together == pytest.approx(apart[0] + 0.5 * apart[1], rel=1e-5)
    tokens = len(one.answer) + 0.5 * len(other.answer)
    assert mean_loss(model, [one, replace(other, weight=0.5)], 20) == pytest.approx(together / tokens, rel=1e-5)


def test_rows_hold_every_example_once_and_no_more_tokens_than_they_may() -> None:
    lengths = [random.Random(3).randrange(10, 90) for _ in range(101)] + [200]
    rows = pack(lengths, 128)
    assert sorted(index for packed in rows for index in packed) == list(range(102))
    assert all(sum(lengths[i] for i in packed) <= 128 or len(packed) == 1 for packed in rows)
    assert len(pack([60] * 10, 128)) == 5


def test_an_epoch_takes_every_example_once_in_an_order_of_its_own() -> None:
    steps = steps_of_epoch(102, batch=16, seed=4, epoch=0)
    assert sorted(index for step in steps for index in step) == list(range(102))
    assert [len(step) for step in steps] == [16] * 6 + [6]
    assert steps == steps_of_epoch(102, batch=16, seed=4, epoch=0)
    assert steps != steps_of_epoch(102, batch=16, seed=4, epoch=1)


def test_the_papers_step_sees_1024_examples_and_its_run_takes_744_steps() -> None:
    assert (PAPER.batch, PAPER.accumulation, PAPER.examples_per_step) == (64, 16, 1024)
    assert total_steps(PAPER, 253_871) == 744
    assert total_steps(replace(PAPER, accumulation=1), 253_871) == 11_901


def test_batch_with_accumulation_is_the_step_of_the_batch_that_large() -> None:
    losses = [
        train(add_lora(tiny(), settings), some_examples(24), settings).losses
        for settings in (quick(batch=6), quick(batch=2, accumulation=3))
    ]
    assert losses[0] == losses[1]


def test_every_lora_tensor_is_fp32_has_a_gradient_and_moves() -> None:
    model = add_lora(tiny(), quick())
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    assert len(before) == 2 * 2 * 7  # A and B in two layers of seven matrices
    assert {p.dtype for p in before.values()} == {torch.float32}
    largest = dict.fromkeys(before, 0.0)
    for name, parameter in trainable(model).items():

        def note(grown: torch.Tensor, name: str = name) -> None:
            assert grown.grad is not None
            largest[name] = max(largest[name], grown.grad.abs().max().item())

        parameter.register_post_accumulate_grad_hook(note)
    train(model, some_examples(60), quick(steps=20))
    assert all(value > 0 for value in largest.values())
    assert all(not torch.equal(before[name], p) for name, p in trainable(model).items())


def sized(maker: Maker) -> Any:
    torch.manual_seed(3)
    return maker(96).requires_grad_(False)


@pytest.mark.parametrize("maker", [falcon, gemma3, glm, qwen3])
@pytest.mark.parametrize("targets", ["attention", "linear"])
def test_a_base_of_any_architecture_trains_every_lora_tensor_on_unmixed_examples(maker: Maker, targets: str) -> None:
    model = add_lora(sized(maker), quick(targets=targets))
    examples, settings = some_examples(12), quick(targets=targets, steps=2, batch=6)
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    inside = {"attn" in name or "self_attention" in name for name in before}
    assert inside == ({True} if targets == "attention" else {True, False})
    apart = torch.stack([summed_loss(model, row([example])) for example in examples]).sum()
    answers = sum(len(example.answer) for example in examples)
    assert mean_loss(model, examples, settings.row_tokens) == pytest.approx(apart.item() / answers, rel=1e-5)
    train(model, examples, settings)
    assert all(not torch.equal(before[name], p) for name, p in trainable(model).items())


def test_examples_are_packed_only_where_they_do_not_see_each_other() -> None:
    assert [packing_capacity(sized(maker), 96) for maker in (llama, qwen3, gemma3, falcon)] == [96, 96, 96, 1]


def test_training_teaches_the_model_to_answer_and_to_stop() -> None:
    model = add_lora(tiny(), quick(rank=16))
    answer = (11, 12, 13, EOS)
    examples = [Example(example.prompt, answer) for example in some_examples(60)]
    trained = train(model, examples, quick(epochs=8, rank=16))
    assert trained.losses[-1] < 0.2 < trained.losses[0]
    ids = torch.tensor([examples[0].prompt])
    written = model.eval().generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
    )
    assert tuple(written[0, ids.shape[1] :].tolist()) == answer


def test_a_stopped_run_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    examples, settings = some_examples(40), quick()
    whole = add_lora(tiny(), settings)
    expected = train(whole, examples, settings)

    file = tmp_path / "checkpoint.safetensors"
    steps_done: list[int] = []
    first = train(
        add_lora(tiny(), settings),
        examples,
        settings,
        checkpoint=file,
        on_step=lambda progress: steps_done.append(progress.step),
        stop=lambda: len(steps_done) == 5,
    )
    assert (first.finished, first.steps) == (False, 5)
    again = add_lora(tiny(), settings)
    rest = train(again, examples, settings, checkpoint=file)
    assert rest.finished
    assert rest.tokens == expected.tokens
    assert rest.losses == pytest.approx(expected.losses, abs=1e-6)
    for name, parameter in trainable(again).items():
        assert torch.allclose(parameter, trainable(whole)[name], atol=1e-6), name


def test_a_killed_run_goes_on_with_the_loss_curve_of_an_uninterrupted_one(tmp_path: Path) -> None:
    expected = train(add_lora(tiny(), quick()), some_examples(40), quick())
    file = tmp_path / "checkpoint.safetensors"
    command = [sys.executable, "-m", "tests.training.tiny", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "4":
                process.kill()
                break
    assert process.returncode == -9
    steps: list[int] = []
    again = add_lora(tiny(), quick())
    rest = train(again, some_examples(40), quick(), checkpoint=file, on_step=lambda at: steps.append(at.step))
    assert 4 <= steps[0] <= len(expected.losses)
    assert steps[-1] == len(expected.losses)
    assert rest.losses == pytest.approx(expected.losses, abs=1e-6)


def test_two_processes_train_to_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    whole = add_lora(tiny(), quick())
    expected = train(whole, some_examples(40), quick())
    file = tmp_path / "checkpoint.safetensors"
    command = ranks.command(2, "tests.training.tiny", str(file))
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, timeout=280)
    again = add_lora(tiny(), quick())
    assert train(again, some_examples(40), quick(), checkpoint=file).losses == pytest.approx(expected.losses, abs=1e-5)
    for name, parameter in trainable(again).items():
        assert torch.allclose(parameter, trainable(whole)[name], atol=1e-5), name


def test_a_finished_checkpoint_only_puts_its_weights_back(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    model = add_lora(tiny(), quick())
    expected = train(model, some_examples(12), quick(), checkpoint=file)
    again = add_lora(tiny(), quick())
    assert train(again, some_examples(12), quick(), checkpoint=file) == expected
    assert all(torch.equal(p, trainable(model)[name]) for name, p in trainable(again).items())


class Card:
    """A card on which a row of more tokens than `room` does not fit, or only with recomputed activations."""

    def __init__(self, model: Any, room: int, recomputing: int = 0) -> None:
        self.seen: list[int] = []
        self._model, self._room, self._recomputing = model, room, recomputing
        model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"].numel()
        recomputes = any(getattr(module, "gradient_checkpointing", False) for module in self._model.modules())
        if tokens > (self._recomputing if recomputes and self._recomputing else self._room):
            raise torch.OutOfMemoryError("no room")
        self.seen.append(tokens)


def test_out_of_memory_halves_the_rows_and_the_run_goes_on_to_the_same_losses() -> None:
    examples, settings = some_examples(40), quick(row_tokens=192)
    expected = train(add_lora(tiny(), settings), examples, settings)
    model = add_lora(tiny(), settings)
    card = Card(model, room=60)
    trained = train(model, examples, settings)
    assert trained.finished
    assert max(card.seen) <= 60
    assert trained.losses == pytest.approx(expected.losses, abs=1e-4)


def test_an_example_that_fits_only_with_recomputed_activations_is_trained_on_so() -> None:
    examples, settings = some_examples(12), quick()
    expected = train(add_lora(tiny(), settings), examples, settings)
    model = add_lora(tiny(), settings)
    longest = max(map(len, examples))
    card = Card(model, room=longest - 1, recomputing=longest)
    trained = train(model, examples, settings)
    assert max(card.seen) == longest
    assert trained.losses == pytest.approx(expected.losses, abs=1e-4)


def test_an_example_that_fits_no_memory_is_named_with_what_to_do() -> None:
    model = add_lora(tiny(), quick())
    Card(model, room=5)
    with pytest.raises(Broken, match=r"tokens does not fit in memory.*smaller max_tokens"):
        train(model, some_examples(12), quick())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    train(add_lora(tiny(), quick()), some_examples(12), quick(), checkpoint=file, every_s=0.0)
    with pytest.raises(Broken, match="another run"):
        train(add_lora(tiny(), quick()), some_examples(12, seed=2), quick(), checkpoint=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Broken, match="not whole"):
        train(add_lora(tiny(), quick()), some_examples(12), quick(), checkpoint=file)


def test_the_rate_rises_to_its_value_and_falls_towards_nothing() -> None:
    settings = quick(warmup=0.1, schedule="cosine")
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(settings.learning_rate)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01 * settings.learning_rate
