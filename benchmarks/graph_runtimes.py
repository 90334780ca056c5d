"""The embedded model as a graph in ONNX Runtime and in OpenVINO, for ``benchmarks/encoding.py``.

What a user of either takes: an exported graph, texts sorted by length, batches of 32 padded to their longest.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

BATCH = 32

Graph = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Embedding(torch.nn.Module):
    """From token ids and mask, int64 ``[texts, tokens]``, to unit-length vectors, float32 ``[texts, dimension]``."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.backbone: Any = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
        self.backbone.pooler = None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the vectors."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


class GraphEncoder:
    """Encodes texts with a graph."""

    def __init__(self, checkpoint: Path, prompt: str, max_length: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.prompt = prompt
        self.max_length = max_length
        self.module = Embedding(checkpoint)
        self.graph: Graph

    def inputs(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and mask, int64 ``[texts, longest]``."""
        encoded = self.tokenizer(
            [self.prompt + text for text in texts], truncation=True, max_length=self.max_length, padding=True,
            return_tensors="np",
        )  # fmt: skip
        return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of texts, float32 ``[texts, dimension]``."""
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        found = np.concatenate([self.graph(*self.inputs([texts[position] for position in batch])) for batch in batches])
        vectors = np.empty_like(found)
        vectors[order] = found
        return vectors


def with_onnxruntime(encoder: GraphEncoder, quantized: bool) -> None:
    """Export the graph; ``quantized`` weights are int8, activations as well, with ranges taken as they come."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shape = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=512)}
    example = encoder.inputs(["a text", "another one"])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            encoder.module, tuple(map(torch.from_numpy, example)), path, output_names=["pooled"],
            input_names=["input_ids", "attention_mask"], dynamic_shapes=(shape, shape), dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
        if quantized:
            plain, path = path, str(Path(folder) / "int8.onnx")
            quantize_dynamic(
                plain, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"]
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    encoder.graph = lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def with_openvino(encoder: GraphEncoder, precision: str, calibration: list[str]) -> None:
    """Convert the graph; ``precision`` is float32, bfloat16, or int8 with ranges measured on the calibration texts."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # without it nothing is sent of their use
    import openvino

    example = tuple(map(torch.from_numpy, encoder.inputs(["a text", "another one"])))
    model = openvino.convert_model(encoder.module, example_input=example, input=[[-1, -1], [-1, -1]])
    if precision == "int8":
        import nncf

        data = nncf.Dataset([encoder.inputs([text]) for text in calibration])
        model = nncf.quantize(model, data, subset_size=len(calibration), model_type=nncf.ModelType.TRANSFORMER)
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    encoder.graph = lambda ids, mask: request.infer([ids, mask], share_inputs=True)[0].copy()
