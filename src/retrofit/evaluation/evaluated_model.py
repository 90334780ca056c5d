"""The models that ``retrofit evaluate`` measures: options of ``conf/model``, runs, adapters, and any other folder."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrofit.artefacts import UNNAMED_KEYS, fingerprint
from retrofit.errors import UserError, one_line
from retrofit.evaluation.run_configuration import MODELS_KEY, replaced, run_configuration
from retrofit.instantiation import instantiate
from retrofit.models.adapted_model import AdaptedModel
from retrofit.models.bi_encoder import Kind, Pooling, Precision
from retrofit.models.bm25 import LexicalSearcher
from retrofit.models.checkpoints import weights_fingerprint
from retrofit.models.embeddings import Encoder
from retrofit.models.model_size import ModelSize
from retrofit.models.search_model import SearchModel
from retrofit.models.sentence_transformer_folder import MODULES

_ENTRY_KEYS = {"folder", "interpolation", "prompts", "name"}
_E5 = re.compile(r"(^|[^a-z0-9])m?e5([^a-z0-9]|$)", re.IGNORECASE)

log = logging.getLogger(__name__)


class Measurable(Protocol):
    """A model without its weights."""

    @property
    def kind(self) -> str:
        """``bi-encoder``, ``static``, ``bm25`` or ``endpoint``."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its results depend on; JSON-like."""

    @property
    def size(self) -> ModelSize:
        """How large it is."""

    def load(self, precision: Precision) -> Encoder | LexicalSearcher:
        """Return what encodes, or what ranks without embeddings."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to be measured.

    Attributes:
        name: in the table; different from those of the others.
        source: where it is from, without machine paths: the option, or the last two parts of the folder.
        model: itself.
        prompts: what it puts before a query and before a passage.
        run: the folder of the run that trained it; None where none did.
    """

    name: str
    source: str
    model: Measurable
    prompts: Mapping[Kind, str]
    run: Path | None = None

    @property
    def kind(self) -> str:
        """``bi-encoder``, ``static``, ``bm25`` or ``endpoint``."""
        return self.model.kind

    @property
    def identity(self) -> dict[str, Any]:
        """What its results depend on, for caching; JSON-like, and of its name nothing."""
        return self.model.identity

    @property
    def parameters(self) -> int | None:
        """Number of weights; None where it has none or they cannot be known."""
        return self.model.size.parameters

    @property
    def dimension(self) -> int | None:
        """Number of components of an embedding; None where there is none, or a server decides."""
        return self.model.size.dimension

    @property
    def megabytes(self) -> float | None:
        """Size of its files, 10^6 bytes; None where it has none here."""
        return self.model.size.megabytes

    @property
    def seed(self) -> int | None:
        """The seed of the run that trained it; None where none did."""
        return None if self.run is None else int(run_configuration(self.run, self.source)["seed"])

    @property
    def unseeded(self) -> str | None:
        """What it has in common with the models of runs of another seed; None where no run trained it.

        The seed stands in the configuration more than once, and so do its folders and its engine: below the keys that
        refer to them.
        """
        if self.run is None:
            return None
        config = run_configuration(self.run, self.source)
        seed, mined = config["seed"], config["negatives"].get("mined") or {}
        rest = {key: value for key, value in config.items() if key not in ("seed", *UNNAMED_KEYS)}
        if mined.get("seed") == seed:
            rest["negatives"] = {**config["negatives"], "mined": {**mined, "seed": None}}
        for place in (*config["paths"].values(), config["engine"]):
            rest = replaced(rest, place, "")
        return fingerprint({"config": rest, "interpolation": getattr(self.model, "weight", None)})

    def load(self, precision: Precision = "float32") -> Encoder | LexicalSearcher:
        """Return what encodes, or what ranks without embeddings, with weights of this precision in memory."""
        return self.model.load(precision)


def models_from_configuration(config: Mapping[str, Any], options: Path) -> list[EvaluatedModel]:
    """Return the models of the key ``models``, in their order; what is missing is downloaded.

    An entry is a string, the name of an option or a folder, or a mapping: ``{option: name, …}`` with changes to what
    the option says, or ``{folder: path}`` with ``interpolation`` (of a run: 0 is its base, 1 its adapter merged) or
    ``prompts`` (``query`` and ``passage``, in place of the folder's own); either with a ``name`` for the table.

    A folder is a run of ``retrofit train`` (its exported model), the ``adapter/`` of one, or any folder of
    sentence-transformers.

    Args:
        config: resolved; ``models`` and ``paths`` are read.
        options: the folder of the options, ``conf/model``.

    Raises:
        UserError: an entry names no model, or one that cannot be used so.
    """
    entries = config[MODELS_KEY]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UserError(f"{MODELS_KEY}={entries}: expected a list of options of conf/model and folders")
    models = [_model(entry, config["paths"], options) for entry in entries]
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{MODELS_KEY}: {', '.join(twice)} stands there twice; give one another name: {{…, name: …}}")
    return models


def _model(entry: Any, paths: Mapping[str, str], options: Path) -> EvaluatedModel:
    named: dict[str, Any] = {"option" if _option(entry, options) else "folder": entry} if _is_text(entry) else entry
    if not isinstance(named, Mapping) or ("option" in named) == ("folder" in named):
        raise UserError(f"{MODELS_KEY}: {entry}: expected a name, or a mapping with either an option or a folder")
    if "option" in named:
        if not _option(named["option"], options):
            raise _unknown(named["option"], options)
        return _of_option(named, paths, options)
    unknown = sorted(set(named) - _ENTRY_KEYS)
    if unknown:
        raise UserError(f"{MODELS_KEY}: {', '.join(unknown)}: expected {', '.join(sorted(_ENTRY_KEYS))} of a folder")
    folder = Path(str(named["folder"])).expanduser().absolute()
    if not folder.is_dir():
        raise _unknown(named["folder"], options)
    found = _of_folder(folder, named, paths)
    if "name" in named:
        return EvaluatedModel(str(named["name"]), found.source, found.model, found.prompts, found.run)
    return found


def _is_text(entry: Any) -> bool:
    return isinstance(entry, str)


def _option(entry: Any, options: Path) -> bool:
    return bool(re.fullmatch(r"\w+", str(entry))) and (options / f"{entry}.yaml").is_file()


def _unknown(entry: Any, options: Path) -> UserError:
    known = ", ".join(sorted(path.stem for path in options.glob("*.yaml")))
    return UserError(f"{MODELS_KEY}: {entry}: no such folder, and no option of conf/model ({known})")


def _of_option(entry: Mapping[str, Any], paths: Mapping[str, str], options: Path) -> EvaluatedModel:
    option = str(entry["option"])
    changes = {key: value for key, value in entry.items() if key != "option"}
    stated = OmegaConf.load(options / f"{option}.yaml")
    OmegaConf.set_struct(stated, True)  # a change to what is not there is a slip
    try:
        merged = OmegaConf.merge(stated, changes)
    except OmegaConfBaseException as error:
        raise UserError(f"{MODELS_KEY}: {option}: {one_line(error)}") from error
    OmegaConf.set_struct(merged, False)
    merged.paths = dict(paths)
    model: Any = OmegaConf.to_container(merged, resolve=True)
    name = str(model["name"])
    if "evaluated" in model:
        instance = instantiate(model["evaluated"])
        return EvaluatedModel(name, option, instance, instance.prompts)
    _check_settings(option, model)
    search = SearchModel.of(model, MODELS_KEY)
    return EvaluatedModel(name, option, search, search.used_prompts)


def _check_settings(option: str, model: Mapping[str, Any]) -> None:
    prompts, length = model["prompts"], model["max_length"]
    kinds = set(get_args(Kind))
    texts = isinstance(prompts, Mapping) and set(prompts) == kinds and all(map(_is_text, prompts.values()))
    wanted = {
        "pooling": (model["pooling"] in (None, *get_args(Pooling)), f"one of {', '.join(get_args(Pooling))}, or null"),
        "prompts": (prompts is None or texts, "a text for query and one for passage, or null"),
        "max_length": (length is None or (type(length) is int and length >= 8), "a whole number of 8 or more, or null"),
    }
    for key, (holds, expected) in wanted.items():
        if not holds:
            raise UserError(f"{MODELS_KEY}: {option}: {key}={model[key]}: expected {expected}")


def _of_folder(folder: Path, entry: Mapping[str, Any], paths: Mapping[str, str]) -> EvaluatedModel:
    source = "/".join(folder.parts[-2:])
    is_run, is_adapter = (folder / "config.yaml").is_file(), (folder / "adapter_config.json").is_file()
    if "interpolation" in entry:
        if not is_run or "prompts" in entry:
            raise UserError(f"{MODELS_KEY}: {source}: interpolation goes with the folder of a run, and no prompts")
        weight = entry["interpolation"]
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight <= 1:
            raise UserError(f"{MODELS_KEY}: {source}: interpolation={weight}: expected a number from 0 to 1")
        return _adapted(folder, float(weight), f"{source}@{weight:g}", paths)
    if is_adapter:
        return _adapted(folder.parent, 1.0, source, paths, folder)
    if is_run:
        return _exported(folder, source)
    if folder.name == "model" and (folder.parent / "config.yaml").is_file():
        return _exported(folder.parent, source)
    if not (folder / MODULES).is_file():
        expected = "a run, the adapter/ of one, or a sentence-transformers folder (modules.json)"
        raise UserError(
            f"{MODELS_KEY}: {source}: expected {expected}; for a plain checkpoint say how it is used: "
            f"{{option: me5_base, checkpoint: {{name: {source}}}}}"
        )
    return _foreign(folder, source, entry.get("prompts"))


def _foreign(folder: Path, source: str, prompts: Any) -> EvaluatedModel:
    search = SearchModel.of_folder(folder)
    if prompts is not None:
        if not isinstance(prompts, Mapping) or set(prompts) != {"query", "passage"}:
            raise UserError(f"{MODELS_KEY}: {source}: prompts={prompts}: expected a mapping with query and passage")
        given: dict[Kind, str] = {"query": str(prompts["query"]), "passage": str(prompts["passage"])}
        search = SearchModel(search.folder, search.pooling, given, search.max_length)
    elif not any(search.used_prompts.values()) and _is_of_e5(folder):
        log.warning(
            "%s: its folder names no prompts, but models of the E5 family were trained with 'query: ' and 'passage: ' "
            "before their texts: %s=[{folder: …, prompts: {query: 'query: ', passage: 'passage: '}}]",
            source, MODELS_KEY,
        )  # fmt: skip
    return EvaluatedModel(source, source, search, search.used_prompts)


def _is_of_e5(folder: Path) -> bool:
    config = folder / "config.json"
    stated = json.loads(config.read_text(encoding="utf-8")).get("_name_or_path") if config.is_file() else None
    return any(_E5.search(name) for name in (*folder.parts[-2:], str(stated or "")))


def _exported(run: Path, source: str) -> EvaluatedModel:
    """Return the exported model of a run, which must be used as the run says."""
    folder, stated = run / "model", run_configuration(run, source)["model"]
    if not (folder / MODULES).is_file():
        raise UserError(f"{MODELS_KEY}: {source}: the run has no model yet; issue its command again")
    search = SearchModel.of_folder(folder)
    for name in ("prompts", "pooling", "max_length"):
        if getattr(search, name) != stated[name]:
            raise UserError(
                f"{MODELS_KEY}: {source}: its model/ says {name}={getattr(search, name)}, its config.yaml "
                f"{stated[name]}: one of them was changed after the run"
            )
    return EvaluatedModel(source, source, search, search.used_prompts, run)


def _adapted(
    run: Path, weight: float, source: str, paths: Mapping[str, str], adapter: Path | None = None
) -> EvaluatedModel:
    """Return the base of a run with its adapter merged to some weight."""
    adapter = adapter or run / "adapter"
    config = run_configuration(run, source)
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"{MODELS_KEY}: {source}: the run has no adapter/; take its model/ (adapter=full has none)")
    # The run may be from another machine, whose cache lay elsewhere.
    checkpoint = replaced(config["model"]["checkpoint"], config["paths"]["cache"], paths["cache"])
    base = SearchModel.of({**config["model"], "checkpoint": checkpoint})
    manifest = run / "data_manifest.json"
    if manifest.is_file():
        trained_on = json.loads(manifest.read_text(encoding="utf-8"))["base_weights"]
        found = weights_fingerprint(base.folder)
        if found != trained_on:
            raise UserError(
                f"{MODELS_KEY}: {source}: its base {config['model']['name']} has other weights ({found}) than those "
                f"that it was trained on ({trained_on})"
            )
    model = AdaptedModel(base, adapter, weight)
    model.check()
    return EvaluatedModel(source, source, model, base.used_prompts, run)
