"""Folders of results as ``experiments/F*`` hold them, made from rules instead of runs."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

SEEDS = (0, 1, 2)
GROUPS = {
    "held_out, seen": ("training", 4836, ("de", "en", "ja", "zh-Hans")),
    "held_out, unseen": ("unseen_languages", 1402, ("fi", "ga")),
    "retention_definitions": ("retention", 900, ("de", "en")),
    "retention_bitext": ("retention", 700, ("de", "ga")),
    "xquad": ("elsewhere", 500, ("ar", "en")),
}
NOISE = 0.0005
HALF = 0.003  # of every interval

Gain = Callable[[Mapping[str, str], str], float]
"""(point, domain) to the gain over the base."""

SOURCES = ("interface", "synthetic", "bitext", "interface_synthetic", "interface_bitext")
NEGATIVES = ("in_batch", "random", "bm25", "dense", "dense_filtered", "refreshed", "teacher")


def label(point: Mapping[str, str]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in point.items())


def sources(point: Mapping[str, str], domain: str) -> float:
    """Synthetic pairs lift, parallel ones hardly: F1 as the paper has it."""
    gain = {"interface": 0.08, "synthetic": 0.06, "bitext": 0.006}.get(point["task_mix"], 0.07)
    return gain if domain in ("training", "unseen_languages") else gain / 10


def amounts(point: Mapping[str, str], domain: str) -> float:
    """Level by 2000 pairs."""
    gain = 0.1 - 0.06 * float(np.exp(-float(point["pairs_per_language"]) / 500))
    return gain if domain in ("training", "unseen_languages") else gain / 10


def negatives(point: Mapping[str, str], domain: str) -> float:
    """All that are mined help, the teacher's most; a random passage does not."""
    order = {"in_batch": 0.0, "random": 0.0, "teacher": 0.02}
    gain = 0.08 + order.get(point["negatives"], 0.01)
    return gain if domain in ("training", "unseen_languages") else 0.008


def each(point: Mapping[str, str], domain: str) -> float:
    """Each more adds a little less."""
    return 0.08 + 0.004 * float(np.log2(float(point["per_query"])))


def diversity(point: Mapping[str, str], domain: str) -> float:
    """Tasks add more than languages."""
    return 0.04 + 0.02 * np.log(float(point["n_tasks"])) + 0.003 * np.log(float(point["n_languages"]))


def final(point: Mapping[str, str], domain: str) -> float:
    """Both gain, and nothing falls."""
    gain = {"lora": 0.09, "full": 0.088}[point["adapter"]]
    return gain if domain in ("training", "unseen_languages") else 0.01


def grid(**values: tuple[object, ...]) -> list[dict[str, str]]:
    points: list[dict[str, str]] = [{}]
    for axis, options in values.items():
        points = [point | {axis: str(option)} for point in points for option in options]
    return points


SWEEPS: dict[str, list[tuple[str, list[dict[str, str]], dict[str, str], Gain]]] = {
    "F1_data_source": [("data_source", grid(task_mix=SOURCES), {"task_mix": "interface"}, sources)],
    "F2_data_scale": [
        (
            "data_scale",
            grid(pairs_per_language=(125, 250, 500, 1000, 2000, 4000)),
            {"pairs_per_language": "4000"},
            amounts,
        )
    ],
    "F3_negatives": [
        ("negatives", grid(negatives=NEGATIVES), {"negatives": "in_batch"}, negatives),
        (
            "negatives_per_query",
            grid(per_query=(1, 2, 4, 8)),
            {"per_query": "1"},
            each,
        ),
        (
            "batch_size",
            grid(negatives=("in_batch", "dense"), batch_size=(16, 64)),
            {"negatives": "in_batch", "batch_size": "64"},
            negatives,
        ),
    ],
    "F4_diversity": [
        (
            "diversity",
            grid(n_tasks=(1, 2, 5), n_languages=(1, 4, 20)),
            {"n_tasks": "1", "n_languages": "1"},
            diversity,
        ),
        (
            "diversity_longer",
            grid(n_tasks=(1, 5), n_languages=(1, 20)),
            {"n_tasks": "1", "n_languages": "1"},
            diversity,
        ),
    ],
    "F5_final": [("final", grid(adapter=("lora", "full")), {"adapter": "lora"}, final)],
}
FINDINGS = tuple(name[:2] for name in SWEEPS)


def write_experiments(folder: Path, *findings: str, gains: Mapping[str, Gain] | None = None) -> Path:
    """Write the folders of some findings (all without any named), their gains by other rules where given by sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sweeps in SWEEPS.items():
        if not findings or name[:2] in findings:
            write_results(folder / name, [(n, p, r, (gains or {}).get(n, rule)) for n, p, r, rule in sweeps])
    return folder


def write_results(folder: Path, sweeps: list[tuple[str, list[dict[str, str]], dict[str, str], Gain]]) -> Path:
    """Write the files of a folder of results."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[dict[str, object]]] = {name: [] for name in (
        "results", "points", "comparison", "languages", "curves")}  # fmt: skip
    for sweep, points, reference, rule in sweeps:
        _write_sweep(tables, sweep, points, reference, rule)
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    environment = {
        "commit": "0123456789abcdef", "packages": {"torch": "2.13.0"},
        "machine": {"cores": 2, "memory_gb": 23.0, "torch_threads": 2},
        "commands": [f"retrofit train -m sweep={sweep}" for sweep, *_ in sweeps],
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def _write_sweep(
    tables: dict[str, list[dict[str, object]]], sweep: str, points: list[dict[str, str]], reference: dict[str, str],
    rule: Gain,
) -> None:  # fmt: skip
    trained_on = next(languages for domain, _, languages in GROUPS.values() if domain == "training")
    for number, point in enumerate(points):
        name = label(point)
        pairs = len(trained_on) * int(point.get("pairs_per_language", 2500))
        for seed in SEEDS:
            tables["points"].append({
                "sweep": sweep, "point": name, "seed": seed, **point, "run": f"{zlib.crc32(name.encode()):08x}{seed}",
                "pairs": pairs, "trained_languages": len(trained_on), "steps": 157, "negatives_per_query": 63,
                "training_seconds": 200 + 10 * number,
                "pairs_per_second": round(pairs / (200 + 10 * number), 1), "total_seconds": 300 + 10 * number,
                "peak_memory_gb": 2.0 + number,
            })  # fmt: skip
            tables["curves"] += [
                {"sweep": sweep, "point": name, "seed": seed, "step": step, "loss": 1 + 2 / step + number / 10}
                for step in range(10, 160, 10)
            ]
        for group, (domain, queries, languages) in GROUPS.items():
            gain = rule(point, domain)
            common = {"sweep": sweep, "point": name, "group": group, "domain": domain}
            for seed in SEEDS:
                seeded = gain + NOISE * _noise(name, group, seed)
                tables["results"].append(
                    common | {"seed": seed, "metric": "ndcg_at_10", "queries": queries, "base": 0.64,
                              "value": 0.64 + seeded, "gain": seeded}
                )  # fmt: skip
            for place, language in enumerate(languages):
                shifted = gain + 0.01 * (place - (len(languages) - 1) / 2)
                tables["languages"].append(
                    common | {"language": language, "queries": 100, "base": 0.6, "value": 0.6 + shifted,
                              "gain": shifted}
                )  # fmt: skip
            others = [("base", 0.0)] + ([] if point == reference else [(label(reference), rule(reference, domain))])
            for against, theirs in others:
                tables["comparison"].append(common | {"against": against, "queries": queries} | _tested(gain - theirs))


def _tested(difference: float) -> dict[str, object]:
    clear = abs(difference) > HALF
    return {
        "seeds": len(SEEDS), "difference": difference, "low": difference - HALF, "high": difference + HALF,
        "seeds_up": len(SEEDS) if clear and difference > 0 else 0 if clear else 1,
        "p": 0.0001 if clear else 0.4, "p_holm": 0.0006 if clear else 0.8,
    }  # fmt: skip


def _noise(point: str, group: str, seed: int) -> float:
    return float(np.random.default_rng(zlib.crc32(f"{point}/{group}/{seed}".encode())).normal())
