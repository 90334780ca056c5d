"""Where the time of one training step goes, with the backbone's own layers and with the fused ones.

    python benchmarks/step_profile.py [short|long] [--pairs FILE]

The steps are those of ``benchmarks/training.py``. Kinds of operations are summed over all threads' waiting; what is not
inside an operation is Python and the autograd engine. The table also has the share of the measured peak of a matrix
product that the products themselves reach, and the whole step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from retrofit.artefacts import default_cache
from retrofit.losses.info_nce import info_nce
from retrofit.models.adapters import apply_adapter
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.embedded_checkpoint import embedded_checkpoint
from training import (
    PROMPTS,
    SETTINGS,
    TEMPERATURE,
    Batches,
    adapter_settings,
    name_of,
    operations,
    pairs_of,
    peak,
    write,
)

OUTPUT = Path(__file__).with_suffix(".csv")
STEPS, UNTIMED = 6, 2
KINDS = {
    "products": ("aten::addmm", "aten::mm"),
    "attention products": ("aten::bmm", "aten::baddbmm"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "layer norm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "copies and casts": ("aten::copy_", "aten::index_select", "aten::index_copy_", "aten::cat", "aten::clone"),
    "sums": ("aten::add", "aten::add_", "aten::mul", "aten::mul_", "aten::sum"),
    "optimiser": ("aten::_fused_adamw_",),
}


def main(options: argparse.Namespace) -> None:
    settings = SETTINGS[options.texts]
    pairs = pairs_of(options.texts, options.pairs)
    flat = [list(next(pairs)) for _ in range(STEPS * settings["pairs"])]
    batches = [flat[start : start + settings["pairs"]] for start in range(0, len(flat), settings["pairs"])]
    work = 2 * operations(batches, settings["max_length"]) / (STEPS - UNTIMED)
    rows: list[dict[str, Any]] = []
    for way in ("plain", "fused"):
        seconds, kinds = profiled(batches, settings["max_length"], fused=way == "fused")
        highest = peak()["bfloat16"]
        for kind, spent in [*kinds.items(), ("Python and the rest", seconds - sum(kinds.values())), ("step", seconds)]:
            reached = work / spent / 1e9 / highest if kind in ("products", "step") else None
            rows.append(
                {
                    "texts": name_of(options), "layers": way, "kind": kind, "milliseconds": round(1000 * spent, 1),
                    "share": round(spent / seconds, 3), "share_of_peak": "" if reached is None else round(reached, 3),
                }
            )  # fmt: skip
    write(OUTPUT, rows, "texts", name_of(options))
    for row in rows:
        print(row)


def profiled(batches: Batches, max_length: int, *, fused: bool) -> tuple[float, dict[str, float]]:
    """Return the seconds of a step without the profiler, and those of its kinds of operations under it."""
    encoder = BiEncoder.load(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512, "eager", 0.0)  # type: ignore[arg-type]
    apply_adapter(encoder, adapter_settings())
    encoder.train()
    encoder.fused = fused
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step(batch: list[list[str]]) -> None:
        texts = encoder.tokenize([query for query, _ in batch], "query", max_length)
        texts += encoder.tokenize([passage for _, passage in batch], "passage", max_length)
        queries, passages = encoder.embed(texts, 4096 if max_length <= 64 else 2048, None, "bfloat16").chunk(2)
        relevance = torch.eye(len(batch), dtype=torch.int8) * 2 - 1
        info_nce(queries @ passages.T / TEMPERATURE, relevance).backward()
        optimizer.step()
        optimizer.zero_grad()

    times = []
    for batch in batches:
        started = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - started)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in batches[UNTIMED:]:
            step(batch)
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        if event.key in kind_of:
            spent[kind_of[event.key]] += event.self_cpu_time_total / 1e6 / (STEPS - UNTIMED)
    return statistics.mean(times[UNTIMED:]), {kind: spent[kind] for kind in KINDS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", choices=list(SETTINGS), nargs="?", default="short")
    parser.add_argument("--pairs", type=Path)
    main(parser.parse_args())
