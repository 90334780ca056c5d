"""A run from end to end, mirrored offline, and what ``wandb sync`` brings to a server of it later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.commands.workplace import read_json
from tests.training.wandb_server import KEY, serving

from retrofit.artefacts import is_complete


def without_empty_mappings(value: Any) -> Any:
    """What Weights & Biases keeps of a configuration."""
    if not isinstance(value, dict):
        return value
    kept = {name: without_empty_mappings(entry) for name, entry in value.items()}
    return {name: entry for name, entry in kept.items() if entry != {}}


def test_the_service_gets_what_the_run_folder_has(
    in_process: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    run = in_process(tmp_path, "logger=wandb_offline", "negatives=bm25")
    with serving() as server:
        done = server.sync(*(run / "wandb").glob("offline-run-*"), home=tmp_path)
    assert done.returncode == 0, done.stderr

    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert {name: server.config[name] for name in written} == without_empty_mappings(written)
    assert server.asked("UpsertBucket")[0]["groupName"] == written["experiment_name"]
    figures = read_json(run / "metrics.json")
    assert {name: server.summary[name] for name in figures} == figures
    curve = pd.read_csv(run / "training_curve.csv")
    history = pd.DataFrame(server.history)
    for column in curve.columns.drop("step"):
        np.testing.assert_allclose(history[f"training/{column}"], curve[column])
    assert history["_step"].tolist() == curve["step"].tolist()
    metrics, table = pd.read_csv(run / "metrics.csv"), server.table("metrics")
    mirrored = pd.DataFrame(table["data"], columns=table["columns"])
    pd.testing.assert_frame_equal(mirrored, metrics, atol=1e-6)
    languages = server.table("languages")
    assert {row[languages["columns"].index("suite")] for row in languages["data"]} == set(figures["headline"])

    manifest, mining = read_json(run / "data_manifest.json"), read_json(run / "mining.json")
    assert is_complete(tmp_path / "cache" / "negatives" / mining["fingerprint"])
    versions = {
        request.path.split("/")[3]: request.body.decode()
        for request in server.requests
        if request.path.endswith("/fingerprint.txt")
    }
    assert versions == {
        "pairs-made_up": manifest["fingerprint"],
        "base-tiny": manifest["base_weights"],
        "negatives-made_up": mining["fingerprint"],
    }
    assert server.used == set(versions)
    made = server.manifest(f"retrofitted-train-{run.name}")
    assert {"model/model.safetensors", "model/modules.json", "adapter/adapter_model.safetensors"} <= set(made)
