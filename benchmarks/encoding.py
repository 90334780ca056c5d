"""Encoding texts with this package, with sentence-transformers, and with graph runtimes: texts a second, side by side.

    python benchmarks/encoding.py [--texts 2000] [--repeats 5] [--long FOLDER] [--python PYTHON] [WAY …]

Every way encodes the same texts with the embedded model, prompts and a limit of 512 tokens, in a process of its own
that first loads the model and encodes all texts once; tokenisation is part of the time. The ways take turns,
``repeats`` times; what is written are medians, and medians of the ratio to the first way within a turn. ``short``
texts are passages of the embedded corpus in all its languages; ``long`` ones, an eighth as many, the corpus of a BEIR
folder (``--long``), or else definitions.

``sentence_transformers`` has the library's default settings; those after it have weights in bfloat16, plain attention
and larger batches; it sorts by length itself. Its ONNX and OpenVINO backends need a package that has no usable version
beside transformers 5, so ``onnxruntime`` and ``openvino`` run the exported graph in batches of similar length. They
are left out unless an interpreter has them (``--python``: with torch, transformers, openvino, nncf, onnx, onnxscript
and onnxruntime). ``retrofit_int8`` is left out unless this interpreter has the extra ``openvino``.

``share_of_peak`` is the share of the fastest matrix product ``[2048, 384] · [384, 1536]`` of the same precision (of
bfloat16 for int8), measured in the same turns. Tokens are counted without padding: 2 operations for each weight
outside the embeddings, and 4 · length · hidden size for each layer's attention. ``cosine_min`` and ``cosine_mean``
compare the vectors with those of the first way.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS = {"query": "query: ", "passage": "passage: "}
MAX_LENGTH = 512
LONG_SHARE = 8
PRODUCT = (2048, 384, 1536)
TEXTS, CALIBRATION, CHECKPOINT = "texts.json", "calibration.json", "checkpoint.txt"
OUTPUT = Path(__file__).with_suffix(".csv")

Encode = Callable[[list[str]], np.ndarray]


def retrofit(checkpoint: Path, precision: str = "auto") -> Encode:
    from retrofit.models.precision import EncodingSettings
    from retrofit.models.search_model import SearchModel

    settings = EncodingSettings.of({"precision": precision, "token_budget": 2048})
    encoder = SearchModel(checkpoint, "mean", PROMPTS, MAX_LENGTH).load(settings.precision)  # type: ignore[arg-type]
    return lambda texts: encoder.encode(texts, "passage", settings.token_budget, settings.precision, label="")


def retrofit_int8(checkpoint: Path) -> Encode:
    from retrofit.artefacts import ArtefactStore, default_cache
    from retrofit.models.precision import EncodingSettings
    from retrofit.models.search_model import SearchModel

    settings = EncodingSettings.of({"precision": "auto", "token_budget": 2048})
    model = SearchModel(checkpoint, "mean", PROMPTS, MAX_LENGTH)  # type: ignore[arg-type]
    encoder = model.load_quantized(calibration_texts(), "passage", ArtefactStore(default_cache()))
    return lambda texts: encoder.encode(texts, "passage", settings.token_budget, settings.precision, label="")


def calibration_texts() -> list[str]:
    texts: list[str] = json.loads((Path(sys.argv[3]) / CALIBRATION).read_text(encoding="utf-8"))
    return texts


def sentence_transformers(checkpoint: Path, batch_size: int = 32, **model_kwargs: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs=model_kwargs)
    model.max_seq_length = MAX_LENGTH

    def encode(texts: list[str]) -> np.ndarray:
        vectors = model.encode(
            texts, prompt=PROMPTS["passage"], batch_size=batch_size, normalize_embeddings=True,
            convert_to_tensor=True, show_progress_bar=False,
        )  # fmt: skip
        return vectors.float().numpy()

    return encode


def graph(checkpoint: Path, runtime: str, precision: str) -> Encode:
    from graph_runtimes import GraphEncoder, with_onnxruntime, with_openvino

    encoder = GraphEncoder(checkpoint, PROMPTS["passage"], MAX_LENGTH)
    if runtime == "onnxruntime":
        with_onnxruntime(encoder, quantized=precision == "int8")
    else:
        with_openvino(encoder, precision, calibration_texts())
    return encoder


WAYS: dict[str, Callable[[Path], Encode]] = {
    "sentence_transformers": sentence_transformers,
    "sentence_transformers_eager": functools.partial(sentence_transformers, attn_implementation="eager"),
    "sentence_transformers_bfloat16": functools.partial(sentence_transformers, dtype="bfloat16"),
    "sentence_transformers_bfloat16_eager": functools.partial(
        sentence_transformers, dtype="bfloat16", attn_implementation="eager"
    ),
    "sentence_transformers_bfloat16_eager_128": functools.partial(
        sentence_transformers, batch_size=128, dtype="bfloat16", attn_implementation="eager"
    ),
    "retrofit": retrofit,
    "retrofit_float32": functools.partial(retrofit, precision="float32"),
    "retrofit_int8": retrofit_int8,
    **{
        f"{runtime}_{precision}": functools.partial(graph, runtime=runtime, precision=precision)
        for runtime, precisions in (("onnxruntime", ("float32", "int8")), ("openvino", ("float32", "bfloat16", "int8")))
        for precision in precisions
    },
}


def product_seconds(precision: str) -> float:
    """Return the time of the matrix product that counts as the peak, the best of ten."""
    import torch

    dtype = getattr(torch, precision)
    left, right = torch.randn(PRODUCT[0], PRODUCT[1]).to(dtype), torch.randn(PRODUCT[1], PRODUCT[2]).to(dtype)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return min(times)


def serve(way: str, folder: Path) -> None:
    """Load a way, then answer each name of a text set on standard input with the seconds it took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    logging.disable(logging.INFO)
    sets = json.loads((folder / TEXTS).read_text(encoding="utf-8"))
    if way.startswith("peak_"):
        measure: Callable[[list[str]], float] = lambda _: product_seconds(way.removeprefix("peak_"))  # noqa: E731
    else:
        encode = WAYS[way](Path((folder / CHECKPOINT).read_text(encoding="utf-8")))
        for name, texts in sets.items():
            np.save(folder / f"{way}_{name}.npy", encode(texts))

        def measure(texts: list[str]) -> float:
            started = time.perf_counter()
            encode(texts)
            return time.perf_counter() - started

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(measure(sets[line.strip()]), file=answers, flush=True)


def write_texts(folder: Path, texts: int, long: Path | None) -> dict[str, list[int]]:
    """Write the text sets, the calibration texts and the checkpoint's place; return the token counts of the sets."""
    from retrofit.artefacts import default_cache
    from retrofit.data.embedded.corpus import build_embedded_corpus
    from retrofit.data.sources.beir import beir_tables, read_documents, stop
    from retrofit.data.sources.files import find_files
    from retrofit.data.storage import PairSource
    from retrofit.models.bi_encoder import load_tokenizer, token_ids
    from retrofit.models.embedded_checkpoint import embedded_checkpoint

    pairs = PairSource.open(build_embedded_corpus(default_cache())).pairs.select(["task", "positives"]).to_pylist()
    short = list(dict.fromkeys(pair["positives"][0] for pair in pairs))
    if long is None:
        longer = list(dict.fromkeys(pair["positives"][0] for pair in pairs if pair["task"] == "definition"))
    else:
        documents = beir_tables(find_files(str(long)), str(long)).documents
        longer = [text.text for _, text in read_documents(documents(), stop)] if documents else []
    generator = np.random.default_rng(0)
    shuffled = {
        name: [all_texts[position] for position in generator.permutation(len(all_texts))]
        for name, all_texts in (("short", short), ("long", longer))
    }
    sets = {"short": shuffled["short"][:texts], "long": shuffled["long"][: texts // LONG_SHARE]}
    calibration = shuffled["short"][texts : texts + 300] + shuffled["long"][texts : texts + 50]
    checkpoint = embedded_checkpoint(default_cache())
    for name, content in (
        (TEXTS, json.dumps(sets)),
        (CALIBRATION, json.dumps(calibration)),
        (CHECKPOINT, str(checkpoint)),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    tokens = load_tokenizer(checkpoint)
    return {
        name: list(map(len, token_ids(tokens, PROMPTS, chosen, "passage", MAX_LENGTH)))  # type: ignore[arg-type]
        for name, chosen in sets.items()
    }


def operations(checkpoint: Path, lengths: list[int]) -> float:
    """Return the floating-point operations that texts of so many tokens need."""
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(checkpoint)
    weights = sum(weight.numel() for name, weight in backbone.named_parameters() if name.startswith("encoder."))
    config = backbone.config
    per_pair = 4 * config.hidden_size * config.num_hidden_layers
    return sum(2 * weights * length + per_pair * length**2 for length in lengths)


def take_turns(
    ways: list[str], python: dict[str, str], folder: Path, repeats: int
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of every way and text set, a figure a turn."""
    processes: dict[str, subprocess.Popen[str]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}

    def ask(way: str, name: str) -> str:
        process = processes[way]
        if name:
            print(name, file=process.stdin, flush=True)
        answer = process.stdout.readline().strip()  # type: ignore[union-attr]
        if not answer:
            raise SystemExit(f"{way} failed; its errors: {folder / way}.log")
        return answer

    try:
        for way in ways:
            command = [python[way], __file__, "--serve", way, str(folder)]
            with (folder / f"{way}.log").open("w") as log:
                processes[way] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
            ask(way, "")
            print(way, "is ready", file=sys.stderr)
        for turn in range(repeats):
            for name in ("short", "long"):
                for way in ways:
                    seconds.setdefault((name, way), []).append(float(ask(way, name)))
            print("turn", turn + 1, file=sys.stderr)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return seconds


def figures(
    name: str,
    lengths: list[int],
    work: float,
    seconds: dict[tuple[str, str], list[float]],
    ways: list[str],
    folder: Path,
) -> list[dict[str, Any]]:
    """Return a row a way for a text set."""
    first = seconds[name, ways[0]]
    product = 2 * PRODUCT[0] * PRODUCT[1] * PRODUCT[2]
    reference = np.load(folder / f"{ways[0]}_{name}.npy")
    rows = []
    for way in ways:
        taken = statistics.median(seconds[name, way])
        precision = "bfloat16" if way == "retrofit" or "bfloat16" in way or "int8" in way else "float32"
        peak = product / statistics.median(seconds[name, f"peak_{precision}"])
        cosine = (np.load(folder / f"{way}_{name}.npy") * reference).sum(axis=1)
        rows.append(
            {
                "set": name, "way": way, "texts": len(lengths), "tokens_a_text": round(sum(lengths) / len(lengths), 1),
                "turns": len(first), "texts_per_second": round(len(lengths) / taken, 1),
                "tokens_per_second": round(sum(lengths) / taken),
                "times_as_fast": round(statistics.median(np.divide(first, seconds[name, way])), 2),
                "gflops": round(work / taken / 1e9), "peak_gflops": round(peak / 1e9),
                "share_of_peak": round(work / taken / peak, 3),
                "cosine_min": round(float(cosine.min()), 5), "cosine_mean": round(float(cosine.mean()), 5),
            }
        )  # fmt: skip
    return rows


def main(options: argparse.Namespace) -> None:
    graphs = [way for way in WAYS if way.startswith(("onnxruntime", "openvino"))]
    left_out = [] if options.python else list(graphs)
    left_out += [] if importlib.util.find_spec("openvino") else ["retrofit_int8"]
    ways = options.ways or [way for way in WAYS if way not in left_out]
    python = {way: options.python if way in graphs and options.python else sys.executable for way in ways}
    peaks = ["peak_float32", "peak_bfloat16"]
    folder = Path(tempfile.mkdtemp(prefix="encoding"))
    lengths = write_texts(folder, options.texts, options.long)
    checkpoint = Path((folder / CHECKPOINT).read_text(encoding="utf-8"))
    everything = python | dict.fromkeys(peaks, sys.executable)
    seconds = take_turns([*ways, *peaks], everything, folder, options.repeats)
    rows = [
        row
        for name, counts in lengths.items()
        for row in figures(name, counts, operations(checkpoint, counts), seconds, ways, folder)
    ]
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())
    shutil.rmtree(folder)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000, help=f"short texts; of long ones 1/{LONG_SHARE} of it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long", type=Path, help="a BEIR folder with long texts, such as jaquad")
    parser.add_argument("--python", help="the interpreter for ONNX Runtime and OpenVINO, which has them")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(WAYS))
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main(parsed())
