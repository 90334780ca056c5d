"""Time of a training step with each attention implementation, side by side.

    python benchmarks/attention.py

Both implementations take turns on the same texts, with LoRA on every linear layer, in bfloat16 where the CPU has it;
the medians and the ratio of each turn's two times go to ``benchmarks/attention.csv``.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import pandas as pd
import peft
import torch

from retrofit.artefacts import default_cache
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.embedded_checkpoint import embedded_checkpoint
from retrofit.models.precision import resolve_precision

SHAPES = ((64, 32), (16, 128))
IMPLEMENTATIONS = ("sdpa", "eager")
TURNS = 9
OUTPUT = Path(__file__).with_suffix(".csv")


def trainable_encoder(attention: str) -> BiEncoder:
    prompts = {"query": "query: ", "passage": "passage: "}
    checkpoint = embedded_checkpoint(default_cache())
    encoder = BiEncoder.load(checkpoint, "mean", prompts, 512, attention, dropout=0.0)  # type: ignore[arg-type]
    apply_adapter(encoder, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return encoder.train()


def seconds_of_a_step(
    encoder: BiEncoder, input_ids: torch.Tensor, autocast: contextlib.AbstractContextManager
) -> float:
    mask = torch.ones_like(input_ids)
    started = time.perf_counter()
    with autocast:
        encoder(input_ids, mask).sum().backward()
    return time.perf_counter() - started


def main() -> None:
    precision = resolve_precision("auto")
    encoders = {attention: trainable_encoder(attention) for attention in IMPLEMENTATIONS}
    rows = []
    for texts, tokens in SHAPES:
        input_ids = torch.randint(5, 200_000, (texts, tokens), generator=torch.Generator().manual_seed(0))
        times: dict[str, list[float]] = {attention: [] for attention in IMPLEMENTATIONS}
        for turn in range(TURNS + 1):
            for attention, encoder in encoders.items():
                autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
                elapsed = seconds_of_a_step(encoder, input_ids, autocast)
                if turn:  # the first turn warms up
                    times[attention].append(elapsed)
        ratios = [sdpa / eager for sdpa, eager in zip(times["sdpa"], times["eager"], strict=True)]
        rows.append(
            {
                "texts": texts,
                "tokens": tokens,
                "precision": precision,
                "threads": torch.get_num_threads(),
                **{f"{name}_ms": round(1000 * statistics.median(values), 1) for name, values in times.items()},
                "sdpa_over_eager_median": round(statistics.median(ratios), 3),
                "sdpa_over_eager_min": round(min(ratios), 3),
                "sdpa_over_eager_max": round(max(ratios), 3),
            }
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(OUTPUT, index=False)


if __name__ == "__main__":
    main()
