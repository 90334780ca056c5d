"""Two real processes end with the weights of one."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from tests.training.shared_steps import STEPS, Case

from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.training.distributed import load_trained, trained_weights

CASES = [
    Case("ddp"),
    Case("even", batch_size=4, anchors=4),
    Case("one_text_chunks", chunk_tokens=1),
    Case("few_texts", few_texts=True, anchors=3),
    Case("computed_again", kept_tokens=100),
    Case("temperature", learnt_temperature=True),
    Case("queue", queue=True),
    Case("full", adapter="full", anchors=0),
    Case("resumed", resumed=True),
    Case("fsdp", strategy="fsdp"),
    Case("fsdp_few_texts", strategy="fsdp", few_texts=True, anchors=3, kept_tokens=0),
    Case("fsdp_computed_again", strategy="fsdp", kept_tokens=250),
    Case("fsdp_temperature", strategy="fsdp", learnt_temperature=True),
    Case("fsdp_full", strategy="fsdp", adapter="full", anchors=0),
    Case("fsdp_resumed", strategy="fsdp", resumed=True),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of what one process and what two made of all cases."""
    script = ["-m", "tests.training.shared_steps"]
    folders, started = {}, []
    for processes, command in (
        (1, [sys.executable, *script]),
        (2, [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *script]),
    ):
        folders[processes] = tmp_path_factory.mktemp("processes")
        cases = json.dumps([dataclasses.asdict(case) for case in CASES])
        started.append(
            subprocess.Popen(
                [*command, str(tiny), str(folders[processes]), cases], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                encoding="utf-8", cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )  # fmt: skip
    for process in started:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    return folders


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_two_processes_end_with_the_weights_of_one(results: dict[int, Path], name: str) -> None:
    alone, both = (torch.load(results[processes] / f"{name}.pt", weights_only=True) for processes in (1, 2))
    assert len(alone["losses"]) == len(both["losses"]) == STEPS
    assert both["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert alone["weights"].keys() == both["weights"].keys()
    for key, weight in alone["weights"].items():
        # The gradient of the one type of token is a sum over all tokens: how it is rounded differs between CPUs.
        atol = 3e-6 if "token_type_embeddings" in key else 1e-6
        torch.testing.assert_close(both["weights"][key], weight, atol=atol, rtol=1e-6, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", [case.name for case in CASES if "resumed" in case.name])
def test_what_was_resumed_ends_as_what_was_not(results: dict[int, Path], name: str) -> None:
    whole = torch.load(results[1] / "ddp.pt", weights_only=True)
    resumed = torch.load(results[2] / f"{name}.pt", weights_only=True)
    for key, weight in whole["weights"].items():
        torch.testing.assert_close(resumed["weights"][key], weight, atol=1e-6, rtol=0)


def test_the_weights_that_are_compared_moved(results: dict[int, Path]) -> None:
    weights = torch.load(results[1] / "ddp.pt", weights_only=True)["weights"]
    from_zero = [weight for name, weight in weights.items() if "lora_B" in name]
    assert len(from_zero) == 12
    assert all(weight.abs().max() > 1e-5 for weight in from_zero)
    temperature = torch.load(results[2] / "temperature.pt", weights_only=True)["weights"][
        "loss.temperature.log_inverse"
    ]
    assert abs(temperature.item() - math.log(10)) > 1e-3


def test_trained_weights_are_loaded_whole_or_not_at_all(load_tiny: Callable[..., BiEncoder]) -> None:
    def adapted() -> BiEncoder:
        encoder = load_tiny()
        apply_adapter(encoder, peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
        return encoder

    trained, other = adapted(), adapted()
    weights = trained_weights(trained)
    assert len(weights) == 4
    load_trained(other, weights)
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], weight, atol=0, rtol=0)
    missing, weight = weights.popitem()
    for wrong in (weights, {**weights, f"module.{missing}": weight}):
        with pytest.raises(RuntimeError, match="trained weights"):
            load_trained(other, wrong)
