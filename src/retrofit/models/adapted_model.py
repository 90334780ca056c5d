"""The adapter of a run on its base, merged in memory as far as one likes, without a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from retrofit.errors import UserError
from retrofit.models.adapters import interpolate
from retrofit.models.bi_encoder import BiEncoder, Kind, Precision
from retrofit.models.checkpoints import files_fingerprint, weights_fingerprint
from retrofit.models.model_size import ModelSize, stored_shapes
from retrofit.models.search_model import SearchModel

_WRAPPED = "base_model.model."


@dataclass(frozen=True)
class AdaptedModel:
    """A base with an adapter.

    Attributes:
        base: the model before training, a plain bi-encoder.
        adapter: folder of a peft adapter.
        weight: 0 gives the base, 1 the adapted model, in between the weights are interpolated.
    """

    base: SearchModel
    adapter: Path
    weight: float

    kind: ClassVar[str] = "bi-encoder"

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; JSON-like."""
        adapter = [weights_fingerprint(self.adapter), files_fingerprint(self.adapter)]
        return {**self.base.identity, "adapter": adapter, "weight": self.weight}

    @property
    def size(self) -> ModelSize:
        """That of the base: merged, the adapter takes no room of its own."""
        return self.base.size

    @property
    def used_prompts(self) -> Mapping[Kind, str]:
        """What is put before a query and before a passage."""
        return self.base.used_prompts

    def check(self) -> None:
        """Return if the adapter fits the base.

        Raises:
            UserError: it changes a layer that the base does not have, or has in another shape.
        """
        base = stored_shapes(self.base.folder)
        for name, shape in stored_shapes(self.adapter).items():
            module, _, part = name.removeprefix(_WRAPPED).partition(".lora_")
            place = {"A.weight": 1, "B.weight": 0}.get(part)
            if place is None:
                continue
            # Some checkpoints have the name of the model before those of its layers.
            found = next((size for key, size in base.items() if f".{key}".endswith(f".{module}.weight")), None)
            if found is None or found[place] != shape[place]:
                has = "no such layer" if found is None else f"{list(found)}"
                raise UserError(
                    f"models: {self.adapter.parent.name}/{self.adapter.name} is no adapter of {self.base.folder.name}: "
                    f"{part} of {module} is {list(shape)}, the base has {has}"
                )

    def load(self, precision: Precision = "float32") -> BiEncoder:
        """Return the encoder, on the GPU where there is one, with weights of this precision in memory."""
        from peft import PeftModel

        encoder = self.base.load("float32")
        assert isinstance(encoder, BiEncoder)  # noqa: S101 -- as a run's base always is; this tells the type checker
        base = {name: tensor.clone() for name, tensor in encoder.backbone.state_dict().items()}
        merged = PeftModel.from_pretrained(encoder.backbone, str(self.adapter)).merge_and_unload(safe_merge=True)
        merged.load_state_dict(interpolate(base, merged.state_dict(), self.weight))
        encoder.backbone = merged.to(getattr(torch, precision)).eval()
        return encoder
