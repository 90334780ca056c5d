"""Training with this package and with sentence-transformers' trainer: pairs a second, losses, the peak's share.

    python benchmarks/training.py TEXTS [--steps 12] [--repeats 3] [--ways WAY …]
    python benchmarks/training.py TEXTS --curves [--steps 30]

TEXTS is ``short`` (the embedded corpus, all languages mixed, 64 pairs a step, texts up to 64 tokens) or ``long`` (32
pairs, 256 tokens): the ``definition`` pairs of the embedded corpus, or with ``--pairs`` those of a JSON Lines file with
query and positive. Every way trains the embedded model with the same LoRA (rank 16, the same first weights), the same
batches in the same order, AdamW and in-batch InfoNCE at temperature .02, in a process of its own; the ways take turns.
The first two steps are not timed.

``sentence_transformers`` is its trainer as it comes; ``_bf16``: with ``bf16=True``; ``_bf16_weights``: the model
loaded in bfloat16; ``_eager``: with plain attention as well. ``retrofit`` is what ``retrofit train`` runs. The work of
a step is taken to be two forward passes: the gradients of the frozen weights are not needed. ``--curves`` writes both
losses of every step in float32.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from retrofit.artefacts import default_cache
from retrofit.data.embedded.corpus import build_embedded_corpus
from retrofit.data.records import content_id
from retrofit.data.storage import PairSource
from retrofit.models.embedded_checkpoint import embedded_checkpoint

PROMPTS = {"query": "query: ", "passage": "passage: "}
TEMPERATURE, LEARNING_RATE, UNTIMED = 0.02, 1e-4, 2
SETTINGS = {"short": {"pairs": 64, "max_length": 64}, "long": {"pairs": 32, "max_length": 256}}
OUTPUT, CURVES = Path(__file__).with_suffix(".csv"), Path(__file__).with_name("training_curves.csv")


def pairs_of(texts: str, file: Path | None) -> Iterator[tuple[str, str]]:
    """Yield queries and passages in an order that mixes languages, none of either twice."""
    if file is not None:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            found = [(row["query"], row["positive"]) for row in map(json.loads, lines)]
    else:
        table = PairSource.open(build_embedded_corpus(default_cache())).pairs.select(["query", "positives", "task"])
        is_long = texts == "long"
        found = [
            (row["query"], row["positives"][0])
            for row in table.to_pylist()
            if (row["task"] == "definition") == is_long and row["task"] not in ("bitext", "emoji_name")
        ]
    found.sort(key=lambda pair: content_id(pair[0] + pair[1], ""))
    seen: set[str] = set()
    for query, passage in found:
        if query not in seen and passage not in seen:
            seen |= {query, passage}
            yield query, passage


def adapter_settings() -> Any:
    import peft

    targets = ["query", "key", "value", "dense"]
    return peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=targets)


def start_alike(model: torch.nn.Module) -> None:
    """Give the adapter the same first weights whichever library put it there: as if it had learnt a little."""
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad and "encoder.layer" in name:  # not that of a pooler nobody asks
            generator = torch.Generator().manual_seed(content_id(name[name.index("encoder.layer") :], "") % 2**31)
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01)


Batches = list[list[list[str]]]
"""Steps of pairs of a query and a passage."""


class Clock:
    """Notes when each step ended and its loss."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        """Note the end of a step."""
        self.ended.append(time.perf_counter())
        self.losses.append(loss)


def with_retrofit(batches: Batches, max_length: int, clock: Clock, precision: str = "auto") -> None:
    import pytorch_lightning as pl

    from retrofit.data.batching import TokenBatch, text_batch
    from retrofit.losses.info_nce import InfoNCE
    from retrofit.models.adapters import apply_adapter
    from retrofit.models.bi_encoder import BiEncoder
    from retrofit.models.precision import resolve_precision
    from retrofit.training.module import RetrievalModule

    encoder = BiEncoder.load(embedded_checkpoint(default_cache()), "mean", PROMPTS, 512, "eager", 0.0)  # type: ignore[arg-type]
    apply_adapter(encoder, adapter_settings())
    start_alike(encoder)

    class Steps(torch.utils.data.Dataset[TokenBatch]):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, step: int) -> TokenBatch:
            rows = [
                {
                    "query": query, "query_id": content_id(query, ""), "positives": [passage],
                    "positive_ids": [content_id(passage, "")], "negatives": [], "negative_ids": [],
                }
                for query, passage in batches[step]
            ]  # fmt: skip
            texts = text_batch(rows, [0] * len(rows))
            ids = [
                *encoder.tokenize(texts.queries, "query", max_length),
                *encoder.tokenize(texts.passages, "passage", max_length),
            ]
            counts = (len(texts.queries), texts.relevance, [], 0)
            return TokenBatch(ids, *counts, texts.query_ids, texts.passage_ids, texts.answers)

    class Note(pl.Callback):
        def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:
            clock.step(float(outputs["loss"]))

    module = RetrievalModule(
        encoder.train(),
        InfoNCE(TEMPERATURE),
        functools.partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0),
        anchor_weight=0.0,
        total_steps=10**9,  # the rate does not fall
        warmup_fraction=0.0,
        chunk_tokens=4096 if max_length <= 64 else 2048,
        kept_tokens=16384,
        precision=resolve_precision(precision),  # type: ignore[arg-type]
        seed=0,
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, callbacks=[Note()],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(Steps(), batch_size=None))


def with_sentence_transformers(
    batches: Batches, max_length: int, clock: Clock, bf16: bool = False, **model: Any
) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    encoder = SentenceTransformer(
        str(embedded_checkpoint(default_cache())), device="cpu", model_kwargs=model,
        config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )  # fmt: skip
    encoder.max_seq_length = max_length
    encoder.add_adapter(adapter_settings())
    start_alike(encoder)

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> BatchSampler:
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

        def training_step(self, *arguments: Any, **options: Any) -> Any:
            loss = super().training_step(*arguments, **options)
            losses_of_steps.append(float(loss))
            return loss

    class Note(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(losses_of_steps[-1])

    losses_of_steps: list[float] = []
    flat = [pair for batch in batches for pair in batch]
    trainer = InOrder(
        model=encoder,
        args=SentenceTransformerTrainingArguments(
            output_dir=tempfile.gettempdir(), per_device_train_batch_size=len(batches[0]), num_train_epochs=1,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", weight_decay=0.0, use_cpu=True, bf16=bf16,
            save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
            prompts={"query": PROMPTS["query"], "passage": PROMPTS["passage"]},
        ),
        train_dataset=Dataset.from_dict(
            {"query": [query for query, _ in flat], "passage": [passage for _, passage in flat]}
        ),
        loss=MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE),
        callbacks=[Note()],
    )  # fmt: skip
    trainer.train()


WAYS: dict[str, Callable[[Batches, int, Clock], None]] = {
    "sentence_transformers": with_sentence_transformers,
    "sentence_transformers_bf16": functools.partial(with_sentence_transformers, bf16=True),
    "sentence_transformers_bf16_weights": functools.partial(with_sentence_transformers, dtype=torch.bfloat16),
    "sentence_transformers_bf16_weights_eager": functools.partial(
        with_sentence_transformers, dtype=torch.bfloat16, attn_implementation="eager"
    ),
    "retrofit": with_retrofit,
    "retrofit_float32": functools.partial(with_retrofit, precision="float32"),
}


def measure(way: str, folder: Path) -> None:
    """Train in this process and write the losses and the seconds of the timed steps."""
    logging.disable(logging.WARNING)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    clock = Clock()
    WAYS[way](task["batches"], task["max_length"], clock)
    seconds = clock.ended[-1] - clock.ended[UNTIMED - 1]
    (folder / "result.json").write_text(json.dumps({"seconds": seconds, "losses": clock.losses}), encoding="utf-8")


def run(way: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", way, str(folder)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def peak() -> dict[str, float]:
    """Return the operations a second, in thousand million, of a large matrix product by precision."""
    found = {}
    for name in ("float32", "bfloat16"):
        left, right = (
            torch.randn(2048, 1536, dtype=getattr(torch, name)),
            torch.randn(1536, 384).to(getattr(torch, name)),
        )
        times = []
        for _ in range(40):
            started = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - started)
        found[name] = 2 * 2048 * 1536 * 384 / statistics.median(times[10:]) / 1e9
    return found


def operations(batches: Batches, max_length: int) -> float:
    """Return the operations that one forward pass over all texts of the timed steps takes, padding left out.

    Two for each weight of a layer and token (the word embeddings are looked up, not multiplied with), and of attention
    two products of the text's length and the hidden size for each token.
    """
    from transformers import AutoConfig

    from retrofit.models.bi_encoder import load_tokenizer

    folder = embedded_checkpoint(default_cache())
    tokenizer, config = load_tokenizer(folder), AutoConfig.from_pretrained(folder)
    hidden, wide = config.hidden_size, config.intermediate_size
    weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * wide)
    total = 0.0
    for batch in batches[UNTIMED:]:
        for column, prompt in enumerate(PROMPTS.values()):
            texts = [prompt + pair[column] for pair in batch]
            for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]:
                total += 2 * weights * len(ids) + config.num_hidden_layers * 4 * hidden * len(ids) ** 2
    return total


def main(options: argparse.Namespace) -> None:
    settings = SETTINGS[options.texts]
    pairs = pairs_of(options.texts, options.pairs)
    flat = [list(next(pairs)) for _ in range(options.steps * settings["pairs"])]
    batches = [flat[start : start + settings["pairs"]] for start in range(0, len(flat), settings["pairs"])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        task = {"batches": batches, "max_length": settings["max_length"]}
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        if options.curves:
            curves = [run(way, folder)["losses"] for way in ("sentence_transformers", "retrofit_float32")]
            rows: list[dict[str, Any]] = [
                {"texts": name_of(options), "step": step + 1, "sentence_transformers": theirs, "retrofit": ours,
                 "difference": ours - theirs}
                for step, (theirs, ours) in enumerate(zip(*curves, strict=True))
            ]  # fmt: skip
            write(CURVES, rows, "texts", name_of(options))
            print("largest difference", max(abs(row["difference"]) for row in rows))
            return
        speeds: dict[str, list[float]] = {way: [] for way in options.ways}
        timed = (options.steps - UNTIMED) * settings["pairs"]
        for _ in range(options.repeats):
            for way in options.ways:
                speeds[way].append(timed / run(way, folder)["seconds"])
                print(way, round(speeds[way][-1], 2), flush=True)
    peaks, work = peak(), 2 * operations(batches, settings["max_length"]) / timed
    default = statistics.median(speeds[options.ways[0]])
    theirs = [statistics.median(speeds[way]) for way in options.ways if way.startswith("sentence")]
    rows = []
    for way, found in speeds.items():
        median = statistics.median(found)
        precision = "float32" if way in ("sentence_transformers", "retrofit_float32") else "bfloat16"
        rows.append(
            {
                "texts": name_of(options), "way": way, "repeats": options.repeats, "steps": options.steps - UNTIMED,
                "pairs_per_second": round(median, 2), "slowest": round(min(found), 2), "fastest": round(max(found), 2),
                "times_first_way": round(median / default, 2), "times_best_other": round(median / max(theirs), 2),
                "gflops_per_second": round(work * median / 1e9), "peak_gflops_per_second": round(peaks[precision]),
                "share_of_peak": round(work * median / 1e9 / peaks[precision], 3),
            }
        )  # fmt: skip
    write(OUTPUT, rows, "texts", name_of(options))
    for row in rows:
        print(row)


def name_of(options: argparse.Namespace) -> str:
    """Return the name of the texts in a table."""
    return f"{options.texts}, {options.pairs.absolute().parent.name}" if options.pairs else str(options.texts)


def write(path: Path, rows: list[dict[str, Any]], key: str, value: str) -> None:
    """Write a table, in place of the rows of the same texts that it had."""
    kept = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row[key] != value]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("texts", choices=list(SETTINGS))
        parser.add_argument("--pairs", type=Path)
        parser.add_argument("--steps", type=int, default=12)
        parser.add_argument("--repeats", type=int, default=3)
        parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
        parser.add_argument("--curves", action="store_true")
        main(parser.parse_args())
