"""Batches and forwards on a small model whose every number can be computed alone."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from ckptdiff.runtime.failures import is_out_of_memory
from ckptdiff.runtime.metrics import compare
from ckptdiff.runtime.precision import computed_in
from ckptdiff.runtime.prompts import Encoded
from ckptdiff.runtime.scoring import Scorer, batch_of, batches, first_nonfinite

PAD = 9


@pytest.fixture(scope="module")
def model() -> transformers.LlamaForCausalLM:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def prompts(*lengths: int) -> list[Encoded]:
    generator = torch.Generator().manual_seed(2)
    return [
        Encoded({"input_ids": torch.randint(10, 100, (length,), generator=generator)})
        for length in lengths
    ]


def alone(model: transformers.LlamaForCausalLM, prompt: Encoded) -> torch.Tensor:
    """All logits of one prompt, computed by nothing but the model."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=prompt.sequences["input_ids"][None]).logits[0]
    return found


def test_prompts_of_like_length_share_a_batch() -> None:
    made = batches(prompts(5, 40, 6, 5, 41, 7), rows=3, tokens=100, pad=PAD)
    assert [batch.numbers for batch in made] == [(0, 3, 2), (5, 1), (4,)]
    assert [batch.lengths for batch in made] == [(5, 5, 6), (7, 40), (41,)]
    first = made[0].inputs
    assert first["input_ids"].shape == (3, 6)
    assert first["input_ids"][0, 5] == PAD
    assert first["attention_mask"].sum(1).tolist() == [5, 5, 6]
    # A prompt longer than the limit is computed all the same, alone.
    assert len(batches(prompts(200, 300), rows=8, tokens=100, pad=PAD)) == 2


def test_prompts_with_images_are_batched_apart() -> None:
    plain, image = prompts(4, 4)
    image = Encoded(image.sequences, {"pixel_values": torch.ones(8, 3)})
    made = batches([plain, image, image], rows=8, tokens=100, pad=PAD)
    assert [batch.numbers for batch in made] == [(0,), (1, 2)]
    assert made[1].inputs["pixel_values"].shape == (16, 3)


@pytest.mark.parametrize("losses", [False, True])
def test_the_last_token_that_is_no_padding_counts(
    model: transformers.LlamaForCausalLM, losses: bool
) -> None:
    given = prompts(3, 11, 7, 1)
    batch = batch_of(given, range(4), PAD)
    outcome = Scorer(model, losses).run(batch)
    for number, prompt in enumerate(given):
        wanted = alone(model, prompt)
        torch.testing.assert_close(outcome.logits[number], wanted[-1], rtol=1e-5, atol=1e-5)
        assert compare(outcome.logits[number][None], wanted[-1][None]).kl[0] < 1e-11
        if losses:
            ids = prompt.sequences["input_ids"]
            loss = torch.nn.functional.cross_entropy(wanted[:-1], ids[1:], reduction="sum")
            total, count = outcome.losses[number]
            assert count == len(ids) - 1
            assert total == pytest.approx(float(loss) if count else 0.0, rel=1e-5)


def test_padding_behind_a_prompt_changes_nothing(model: transformers.LlamaForCausalLM) -> None:
    given = prompts(5, 5)
    outcomes = []
    for pad in (PAD, 55):
        wide = batch_of([*given, *prompts(20)], range(3), pad)
        outcomes.append(Scorer(model, False).run(wide).logits[:2])
    assert torch.equal(*outcomes)


def test_a_wider_dtype_is_what_a_wider_model_computes(
    model: transformers.LlamaForCausalLM,
) -> None:
    batch = batch_of(prompts(9), [0], PAD)
    narrow = Scorer(model, False).run(batch).logits
    with computed_in(model, torch.float64), torch.inference_mode():
        wide = model(input_ids=batch.inputs["input_ids"]).logits[:, -1]
    assert torch.equal(Scorer(model, False).run(batch).logits, narrow)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    double = copy.deepcopy(model).double()
    with torch.inference_mode():
        wanted = double(input_ids=batch.inputs["input_ids"]).logits[:, -1]
    assert wide.dtype == torch.float64
    # Norms compute in float32 in either, as their code has it.
    assert (wide - wanted).abs().max() < 0.05 * (narrow - wanted).abs().max()


def test_bfloat16_is_widened_to_what_float32_computes(
    model: transformers.LlamaForCausalLM,
) -> None:
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    batch = batch_of(prompts(9), [0], PAD)
    wanted = Scorer(copy.deepcopy(narrow).float(), False).run(batch).logits
    with computed_in(narrow, torch.float32):
        wide = Scorer(narrow, False).run(batch).logits
    off = (Scorer(narrow, False).run(batch).logits - wanted).abs().max()
    assert (wide - wanted).abs().max() < 0.01 * off


def test_nan_is_located(model: transformers.LlamaForCausalLM) -> None:
    batch = batch_of(prompts(4), [0], PAD)
    run = Scorer(model, False)
    assert first_nonfinite(model, run, batch) == ""
    weight = model.model.layers[1].mlp.up_proj.weight
    kept = weight[3, 3].item()
    with torch.no_grad():
        weight[3, 3] = float("nan")
        assert first_nonfinite(model, run, batch) == "model.layers.1.mlp.up_proj"
        weight[3, 3] = kept
    assert not model.model.layers[1].mlp.up_proj._forward_hooks


def test_running_out_of_memory_is_told_from_other_failures() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    # A context, a workspace and a kernel that find no room on a full GPU.
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
