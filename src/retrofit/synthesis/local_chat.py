"""A language model that runs here: a folder or a repository of the hub, through transformers.

What is guaranteed: the same prompts get the same replies whatever their order and whatever the engine, on machines that
compute alike. A reply's random numbers are a function of the seed and its prompt. Blocks are cut from the distinct
prompts in an order of their own; which others a prompt shares its block with moves its scores in the last digits, by
the padding, and so now and then a reply.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from retrofit.artefacts import file_digest
from retrofit.data.sources.validation import check_count, is_number
from retrofit.engine import Engine
from retrofit.errors import UserError, one_line
from retrofit.models.bi_encoder import Precision
from retrofit.models.checkpoints import WEIGHTS_AND_TOKENIZER, files_fingerprint, hub_folder, weights_fingerprint
from retrofit.models.precision import resolve_precision
from retrofit.synthesis.chat import Prompt, Reply
from retrofit.synthesis.decoding import JSON_PREFIX, ClosingQuote, SeededSampling, completed_json

CODE_VERSION = 1  # raise it whenever this module makes other replies of the same model and keys
KEY = "data_source.*.chat"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
    """How replies are written.

    Attributes:
        temperature: 0 takes the likeliest token; above, the higher the more varied.
        top_p: the likeliest tokens that have this probability together may be drawn.
        max_tokens: tokens after which a reply is cut.
        seed: of the draws.
        json_prefix: whether the reply begins with ``{"text": "`` and ends where that string does.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    json_prefix: bool

    def __post_init__(self) -> None:
        check_count(f"{KEY}.max_tokens", self.max_tokens)
        wanted = {
            "temperature": (is_number(self.temperature) and self.temperature >= 0, "a number of 0 or more"),
            "top_p": (is_number(self.top_p) and 0 < self.top_p <= 1, "a number above 0 and at most 1"),
        }
        for name, (holds, expected) in wanted.items():
            if not holds:
                raise UserError(f"{KEY}.{name}={getattr(self, name)}: expected {expected}")

    @property
    def identity(self) -> dict[str, Any]:
        """What replies depend on; JSON-like. What greedy replies do not depend on is not part of it."""
        identity = {"temperature": self.temperature, "max_tokens": self.max_tokens, "json_prefix": self.json_prefix}
        return identity if self.temperature == 0 else {**identity, "top_p": self.top_p, "seed": self.seed}


class LocalChat:
    """A causal language model of transformers.

    Attributes:
        name: how provenance calls it.
        folder: where its files are.
        gguf_file: the file of the folder that has weights and tokenizer; None for safetensors.
        sampling: how replies are written.
        batch_size: prompts that go through the model at once.
        precision: of weights and computation.
    """

    def __init__(
        self,
        model: str | Path | None,
        revision: str | None,
        gguf_file: str | None,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
        batch_size: int,
        precision: Precision | Literal["auto"],
        json_prefix: bool,
        name: str | None,
    ) -> None:
        """Find the model, fetching it where it is one of the hub; it is loaded only where replies are asked for.

        Args:
            model: a folder, or a repository of the Hugging Face hub.
            revision: branch, tag or commit on the hub.
            gguf_file: name of a GGUF file in it that is read instead of safetensors weights and tokenizer.
            temperature: see :class:`Sampling`.
            top_p: likewise.
            max_tokens: likewise.
            seed: likewise.
            batch_size: prompts that go through the model at once.
            precision: of weights and computation; ``auto`` is what the machine computes best in.
            json_prefix: see :class:`Sampling`.
            name: how provenance calls it; None for ``model``.

        Raises:
            UserError: a value is out of bounds, there is no such model, it lacks weights that are safe to read, or GGUF
                cannot be read here.
        """
        self.sampling = Sampling(temperature, top_p, max_tokens, seed, json_prefix)
        if batch_size < 1:
            raise UserError(f"{KEY}.batch_size={batch_size}: expected 1 or more")
        if model is None:
            raise UserError(f"{KEY}.model=null: expected a folder or a repository of the hub")
        self.gguf_file = gguf_file
        self.folder = _model_folder(str(model), revision, gguf_file)
        self.batch_size = batch_size
        self.precision = resolve_precision(precision, _device())
        self.name = name or str(model)

    @functools.cached_property
    def identity(self) -> Mapping[str, Any]:
        """What replies depend on besides the prompt; JSON-like. It reads all weights, once."""
        if self.gguf_file:
            model = {"gguf": file_digest(self.folder / self.gguf_file)}
        else:
            model = {"weights": weights_fingerprint(self.folder), "files": files_fingerprint(self.folder)}
        return {"code": CODE_VERSION, **model, "precision": self.precision, **self.sampling.identity}

    def replies(self, prompts: Sequence[Prompt], engine: Engine) -> Iterator[tuple[int, Reply]]:
        """Yield a reply to each prompt with the prompt's position; see :class:`ChatModel`.

        No reply has a day, for none depends on it. The longest prompts come first: if they fit into memory, all do.

        Raises:
            UserError: the model cannot be loaded, or a prompt is longer than it reads.
        """
        positions: dict[Prompt, list[int]] = defaultdict(list)
        for position, prompt in enumerate(prompts):
            positions[prompt].append(position)
        ordered = sorted(positions, key=lambda prompt: (-sum(len(turn.encode()) for turn in prompt), prompt))
        blocks = [ordered[start : start + self.batch_size] for start in range(0, len(ordered), self.batch_size)]
        log.info("%s: %d prompts in blocks of %d, %s", self.name, len(ordered), self.batch_size, self.precision)
        make_worker = functools.partial(_Worker, self.folder, self.gguf_file, self.precision, self.sampling)
        for block, replies in zip(blocks, engine.map(make_worker, blocks), strict=True):
            for prompt, reply in zip(block, replies, strict=True):
                for position in positions[prompt]:
                    yield position, reply


class _Worker:
    """The model in memory; replies to a block of prompts."""

    def __init__(self, folder: Path, gguf_file: str | None, precision: Precision, sampling: Sampling) -> None:
        self.sampling = sampling
        self.tokenizer, self.model = _load(folder, gguf_file, precision)
        self.model = self.model.to(_device())
        self.longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        own = self.model.generation_config.eos_token_id
        ends = {*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id} - {None}
        self.ends: list[int] = sorted(ends)
        padding = self.tokenizer.pad_token_id
        self.padding: int = padding if padding is not None else next(iter(self.ends), 0)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        sampling = self.sampling
        input_ids, attention_mask = _padded_left([self._tokens(prompt) for prompt in prompts], self.padding)
        width = input_ids.shape[1]
        if self.longest is not None and width + sampling.max_tokens > self.longest:
            raise UserError(
                f"{KEY}.model reads and writes at most {self.longest:,} tokens, the longest prompt has {width:,} and "
                f"{KEY}.max_tokens={sampling.max_tokens} come to it: lower data_source.generator.max_passage_characters"
            )
        choosing, stopping = [], []
        if sampling.temperature > 0:
            choosing.append(
                SeededSampling(
                    ["\0".join(prompt) for prompt in prompts],
                    width,
                    sampling.temperature,
                    sampling.top_p,
                    sampling.max_tokens,
                    sampling.seed,
                )
            )
        if sampling.json_prefix:
            stopping.append(ClosingQuote(self._decode, width))
        with torch.inference_mode():
            # Greedy also where tokens are drawn: the draw has then been made (SeededSampling).
            found = self.model.generate(
                input_ids=input_ids.to(self.model.device), attention_mask=attention_mask.to(self.model.device),
                max_new_tokens=sampling.max_tokens, do_sample=False, num_beams=1, eos_token_id=self.ends or None,
                pad_token_id=self.padding, logits_processor=choosing, stopping_criteria=stopping,
            )  # fmt: skip
        read = attention_mask.sum(1).tolist()
        return [self._reply(row, count) for row, count in zip(found[:, width:].tolist(), read, strict=True)]

    def _tokens(self, prompt: Prompt) -> list[int]:
        prefix = JSON_PREFIX if self.sampling.json_prefix else ""
        if self.tokenizer.chat_template:
            roles = ("user", "assistant")
            turns = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(prompt)]
            # A model that can think aloud first would use up max_tokens on it.
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            return list(self.tokenizer(text + prefix, add_special_tokens=False)["input_ids"])
        # A model that knows of no turns goes on with a text, as a paragraph each shows it.
        text = "\n\n".join([*prompt, prefix] if prefix else prompt)
        ids = list(self.tokenizer(text)["input_ids"])
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids

    def _reply(self, tokens: list[int], prompt_tokens: int) -> Reply:
        # Filled up with padding once it has ended; the padding may be an ending itself.
        ended = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        count = len(tokens) if ended is None else ended
        while count and tokens[count - 1] == self.padding:
            count -= 1
        content = self._decode(tokens[:count])
        if self.sampling.json_prefix:
            content = completed_json(content, ended=count < self.sampling.max_tokens)
        return Reply(content, prompt_tokens=prompt_tokens, completion_tokens=count)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _model_folder(model: str, revision: str | None, gguf_file: str | None) -> Path:
    if gguf_file and importlib.util.find_spec("gguf") is None:
        raise UserError(f"{KEY}.gguf_file={gguf_file} needs the package gguf: pip install -e '.[gguf]'")
    patterns = [gguf_file] if gguf_file else WEIGHTS_AND_TOKENIZER
    folder = hub_folder(model, revision, patterns, f"{KEY}.model").absolute()  # for workers that stand elsewhere
    if gguf_file and not (folder / gguf_file).is_file():
        raise UserError(f"{KEY}.gguf_file={gguf_file}: no such file in {folder}")
    if not gguf_file and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{KEY}.model={model}: no *.safetensors weights in {folder}; pickled weights are not read, and of GGUF "
            f"files the one that {KEY}.gguf_file names"
        )
    return folder


def _load(folder: Path, gguf_file: str | None, precision: Precision) -> tuple[Any, Any]:
    import transformers

    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    weights: dict[str, Any] = {"dtype": getattr(torch, precision)}
    if gguf_file:
        options["gguf_file"] = gguf_file
        # Plain weights: for packed ones transformers fetches compiled kernels from the hub where it can. Versions
        # that lack this configuration know nothing else.
        if hasattr(transformers, "GgufConfig"):
            weights["quantization_config"] = transformers.GgufConfig(dequantize=True)
    else:
        weights["use_safetensors"] = True
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options, **weights)
    except (OSError, ValueError, KeyError) as error:  # what transformers raises for a folder it can make nothing of
        reason = one_line(error)[:300]
        raise UserError(f"{KEY}.model: {folder} is no causal language model transformers can load: {reason}") from error
    return tokenizer, model.eval()


def _padded_left(token_ids: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both int64 ``[prompts, longest]``: replies begin in the same column."""
    longest = max(len(ids) for ids in token_ids)
    input_ids = torch.full((len(token_ids), longest), padding, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(token_ids):
        input_ids[row, longest - len(ids) :] = torch.tensor(ids, dtype=torch.int64)
        attention_mask[row, longest - len(ids) :] = 1
    return input_ids, attention_mask
