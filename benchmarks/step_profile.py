"""Where the time of one training step goes, with the backbone's own layers and with the fused ones, and of encoding.

    python benchmarks/step_profile.py [short|long] [--pairs FILE]

The steps are those of ``benchmarks/training.py``. Kinds of operations are summed over all threads' waiting; what is not
inside an operation is Python, the autograd engine and, of ``encoding`` (the texts of a step, without gradients), the
tokenizer. The table also has the share of the measured peak of a matrix product that the products themselves reach, and
the whole.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bare_steps import BareSteps
from torch.profiler import ProfilerActivity, profile

from training import SETTINGS, Batches, name_of, operations, pairs_of, peak, write

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
    forward = operations(batches, settings["max_length"]) / (STEPS - UNTIMED)
    rows: list[dict[str, Any]] = []
    for layers, whole in (("plain", "step"), ("fused", "step"), ("fused", "encoding")):
        seconds, kinds = profiled(batches, settings["max_length"], layers == "fused", whole == "encoding")
        highest, work = peak()["bfloat16"], forward if whole == "encoding" else 2 * forward
        for kind, spent in [*kinds.items(), ("Python and the rest", seconds - sum(kinds.values())), (whole, seconds)]:
            reached = work / spent / 1e9 / highest if kind in ("products", whole) else None
            rows.append(
                {
                    "texts": name_of(options), "layers": layers, "of": whole, "kind": kind,
                    "milliseconds": round(1000 * spent, 1),
                    "share": round(spent / seconds, 3), "share_of_peak": "" if reached is None else round(reached, 3),
                }
            )  # fmt: skip
    write(OUTPUT, rows, "texts", name_of(options))
    for row in rows:
        print(row)


def profiled(batches: Batches, max_length: int, fused: bool, encoding: bool) -> tuple[float, dict[str, float]]:
    """Return the seconds of a step without the profiler, and those of its kinds of operations under it."""
    steps = BareSteps(max_length, kept_tokens=None)
    steps.encoder.fused, steps.encoder.max_length = fused, max_length

    def take(batch: Any) -> None:
        if encoding:
            steps.encoder.encode([text for pair in batch for text in pair], "passage", precision="bfloat16")
        else:
            steps.take(batch)

    times = []
    for batch in batches:
        started = time.perf_counter()
        take(batch)
        times.append(time.perf_counter() - started)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in batches[UNTIMED:]:
            take(batch)
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
