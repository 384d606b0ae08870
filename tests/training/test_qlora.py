"""The training loop on a tiny random Llama in fp32, where equal means equal, and on the real 4-bit demo base where that is the point."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from transformers import LlamaConfig, LlamaForCausalLM

from core.errors import Broken
from training.packing import Example, pack, row, steps_of_epoch
from training.profiles import SMOKE, Profile, profile
from training.qlora import add_lora, learning_rate, summed_loss, train, trainable

EOS = 2
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


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    model.lm_head.weight.mul_(20)  # random heads are too flat for any hidden state to be sure of a token
    return model


def some_examples(count: int, seed: int = 1) -> list[Example]:
    """Prompts whose answer is their own first tokens, then the end."""
    draw = random.Random(seed)
    examples = []
    for _ in range(count):
        prompt = [draw.randrange(3, 96) for _ in range(draw.randrange(6, 30))]
        examples.append(Example(tuple(prompt), (*prompt[: draw.randrange(2, 6)], EOS)))
    return examples


def quick(**changes: object) -> Profile:
    small = {"batch": 6, "row_tokens": 96, "epochs": 2, "steps": None, "learning_rate": 1e-2}
    return profile("smoke", **{**small, **changes})


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


def test_rows_hold_every_example_once_and_no_more_tokens_than_they_may() -> None:
    lengths = [random.Random(3).randrange(10, 90) for _ in range(101)] + [200]
    steps = steps_of_epoch(lengths, batch=16, capacity=128, seed=4, epoch=0)
    assert sorted(index for rows in steps for packed in rows for index in packed) == list(range(102))
    assert all(sum(lengths[i] for i in packed) <= 128 or len(packed) == 1 for rows in steps for packed in rows)
    assert steps == steps_of_epoch(lengths, batch=16, capacity=128, seed=4, epoch=0)
    assert steps != steps_of_epoch(lengths, batch=16, capacity=128, seed=4, epoch=1)
    assert len(pack([60] * 10, 128)) == 5


def test_every_lora_tensor_is_fp32_and_moves() -> None:
    model = add_lora(tiny(), quick())
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    assert len(before) == 2 * 2 * len(SMOKE.targets)
    assert {p.dtype for p in before.values()} == {torch.float32}
    train(model, some_examples(60), quick(steps=5))
    assert all(not torch.equal(before[name], p) for name, p in trainable(model).items())


def test_training_teaches_the_model_to_answer_and_to_stop() -> None:
    model = add_lora(
        tiny(), quick(rank=16, targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
    )
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
