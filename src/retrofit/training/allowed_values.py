"""What each number and each choice of a configuration may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from retrofit.data.sampling import Homogeneous
from retrofit.evaluation.corpus_encoding import StoredType
from retrofit.losses.distillation import DistillationKind
from retrofit.models.bi_encoder import Kind, Pooling, Precision
from retrofit.models.quantized_encoder import INT8
from retrofit.negatives.candidates import Languages, SearchKind
from retrofit.negatives.choice import Sampling
from retrofit.negatives.mining import SearchedIn


@dataclass(frozen=True)
class Number:
    """What a number of the configuration may be.

    Attributes:
        key: where it stands.
        least: its smallest value.
        most: its largest value.
        whole: whether it must be an integer.
        above: whether the smallest value itself is excluded.
        optional: whether null is a value too.
    """

    key: str
    least: float
    most: float = math.inf
    whole: bool = False
    above: bool = False
    optional: bool = False

    def allows(self, value: Any) -> bool:
        """Return whether a value is of the right kind and in range."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return math.isfinite(value) and self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        span = f"above {self.least:g}" if self.above else f"of {self.least:g} or more"
        until = "" if math.isinf(self.most) else f", at most {self.most:g}"
        return f"{kind} {span}{until}{', or null' if self.optional else ''}"


EVALUATION_NUMBERS = (
    Number("evaluation.token_budget", 8, whole=True),
    Number("evaluation.retention.max_drop", 0, optional=True),
)

DATA_NUMBERS = (
    Number("seed", 0, 2**32 - 1, whole=True),
    Number("data_scale.pairs_per_language", 1, whole=True, optional=True),
    Number("data_scale.pairs", 2, whole=True, optional=True),
    Number("task_mix.n_tasks", 1, whole=True, optional=True),
    Number("languages.n_languages", 1, whole=True, optional=True),
)

NUMBERS = (
    *DATA_NUMBERS,
    Number("batching.batch_size", 2, whole=True),
    Number("batching.steps", 1, whole=True, optional=True),
    Number("batching.max_length", 8, whole=True),
    Number("batching.chunk_tokens", 8, whole=True),
    Number("batching.kept_tokens", 0, whole=True, optional=True),
    Number("batching.alpha.task", 0),
    Number("batching.alpha.language", 0),
    Number("loss.temperature", 0, above=True),
    Number("loss.symmetric_weight", 0, 1),
    Number("loss.hardness", 0),
    Number("loss.guide.margin", -2, 2, optional=True),
    Number("loss.distillation.weight", 0, 1),
    Number("loss.distillation.teacher_temperature", 0, above=True),
    Number("loss.queue_size", 0, whole=True),
    Number("anchor.weight", 0),
    Number("anchor.texts", 0, whole=True),
    Number("adapter.learning_rate", 0, above=True),
    Number("optimizer.warmup_fraction", 0, 1),
    Number("optimizer.clip_norm", 0, above=True, optional=True),
    Number("negatives.given", 0, whole=True),
    Number("negatives.random", 0, whole=True),
    Number("trainer.devices", 1, whole=True),
    Number("trainer.num_nodes", 1, whole=True),
    Number("trainer.loader_workers", 0, whole=True),
    Number("trainer.checkpoint_every", 1, whole=True),
    Number("trainer.keep_checkpoints", 1, whole=True),
    Number("trainer.divergence.factor", 1, above=True, optional=True),
    Number("trainer.divergence.window", 1, whole=True),
    Number("trainer.divergence.patience", 1, whole=True),
    Number("trainer.log_every", 1, whole=True),
    Number("model.max_length", 8, whole=True),
    Number("model.dropout", 0, 1, optional=True),
    *EVALUATION_NUMBERS,
    Number("export.max_drop", 0),
    Number("export.gain_share", 0, 1),
)

FILTER_NUMBERS = (
    Number("negatives.mined.first_rank", 1, whole=True),
    Number("negatives.mined.max_score", -1, 1, optional=True),
    Number("negatives.mined.margin", 0, optional=True),
    Number("negatives.mined.share", 0, optional=True),
    Number("negatives.mined.near_duplicates", 0, 1, above=True, optional=True),
)

MINED_NUMBERS = (
    Number("negatives.mined.per_query", 1, whole=True),
    Number("negatives.mined.count", 1, whole=True),
    Number("negatives.mined.candidates", 1, whole=True),
    *FILTER_NUMBERS,
    Number("negatives.mined.refresh_every_steps", 1, whole=True, optional=True),
    Number("negatives.mined.refresh_every_epochs", 0, above=True, optional=True),
    Number("negatives.mined.seed", 0, whole=True),
    Number("negatives.mined.memory_mb", 64, whole=True),
)

ENGINE_NUMBERS = (
    Number("engine.workers", 1, whole=True),
    Number("engine.cpus_per_worker", 1, whole=True),
    Number("engine.gpus_per_worker", 0),
)
"""Of engine=ray; engine=local has none of them."""

EVALUATION_MAPPINGS = ("evaluation.suites", "evaluation.sources", "evaluation.retention.groups")

MAPPINGS = (
    "model.checkpoint",
    "task_mix.weights",
    "optimizer.optimizer",
    "evaluation.validation",
    *EVALUATION_MAPPINGS,
)
"""What has keys below it, so cannot be another value or null."""

DATA_LISTS = ("task_mix.tasks", "languages.languages")

LISTS = (*DATA_LISTS, "anchor.tasks")
"""What is a list of names, or null."""

INSPECT_NUMBERS = (*DATA_NUMBERS, Number("sample", 1, whole=True), Number("examples", 0, whole=True))

SYNTHESIS_NUMBERS = (Number("seed", 0, 2**32 - 1, whole=True), Number("sample", 1, whole=True))

ADAPTER_NUMBERS = (
    Number("adapter.config.r", 1, whole=True),
    Number("adapter.config.lora_alpha", 0, above=True),
    Number("adapter.config.lora_dropout", 0, 1),
)
"""Of a low-rank adapter; adapter=full has none of them."""

EVALUATION_CHOICES: dict[str, tuple[Any, ...]] = {"evaluation.precision": ("auto", *get_args(Precision))}

ADAPTER_CHOICES = {
    "adapter.config.bias": ("none", "lora_only", "all"),
    "adapter.config.use_dora": (True, False),
    "adapter.config.use_rslora": (True, False),
}

ENCODING_NUMBERS = (
    Number("model.max_length", 8, whole=True, optional=True),
    Number("dimensions", 1, whole=True, optional=True),
    Number("token_budget", 8, whole=True),
    Number("block_texts", 1, whole=True),
)

ENCODING_CHOICES = {
    "model.pooling": (None, *get_args(Pooling)),
    "kind": get_args(Kind),
    "dtype": get_args(StoredType),
    "precision": ("auto", *get_args(Precision), INT8),
}

MINED_CHOICES = {
    "negatives.mined.search": get_args(SearchKind),
    "negatives.mined.pool": get_args(SearchedIn),
    "negatives.mined.languages": get_args(Languages),
    "negatives.mined.sampling": get_args(Sampling),
    "negatives.mined.fill": (True, False),
}

CHOICES = {
    "batching.homogeneous": get_args(Homogeneous),
    "loss.learn_temperature": (True, False),
    "loss.guide.relative": (True, False),
    "loss.guide.in_batch_only": (True, False),
    "loss.distillation.kind": (None, *get_args(DistillationKind)),
    "model.pooling": get_args(Pooling),
    "trainer.fused_layers": (True, False),
    "trainer.attention": ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
    "trainer.accelerator": ("cpu", "gpu"),
    "trainer.strategy": ("auto", "ddp", "fsdp"),
    "trainer.process_group_backend": (None, "gloo", "nccl"),
    "trainer.precision": ("auto", *get_args(Precision)),
    "logger.mode": ("disabled", "offline", "online"),
    "logger.upload_model": (True, False),
    **EVALUATION_CHOICES,
}
