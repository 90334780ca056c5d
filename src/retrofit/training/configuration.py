"""The rules a training configuration must keep, each broken one named by the key that mends it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from retrofit.errors import UserError
from retrofit.evaluation.suite_tasks import suites_of_folders
from retrofit.losses.objective import needs_teacher
from retrofit.losses.temperature import LOWEST_LEARNT
from retrofit.training.allowed_values import (
    ADAPTER_CHOICES,
    ADAPTER_NUMBERS,
    CHOICES,
    DATA_LISTS,
    DATA_NUMBERS,
    ENCODING_CHOICES,
    ENCODING_NUMBERS,
    ENGINE_NUMBERS,
    EVALUATION_CHOICES,
    EVALUATION_MAPPINGS,
    EVALUATION_NUMBERS,
    INSPECT_NUMBERS,
    LISTS,
    MAPPINGS,
    MINED_CHOICES,
    MINED_NUMBERS,
    NUMBERS,
    SYNTHESIS_NUMBERS,
    Number,
)
from retrofit.training.interpolation import weights_to_try
from retrofit.training.mining_rules import mining_rules, tried_rules
from retrofit.training.model_rules import adapter_rules, model_rules, optimizer_rules
from retrofit.training.suite_rules import benchmark_rules, suite_rules


def check(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    _check_weights(config)
    _check_mappings(config, MAPPINGS)
    _check_lists(config, LISTS)
    _check_numbers(config, NUMBERS)
    _check_choices(config, CHOICES)
    if config["adapter"]["config"] is not None:
        _check_numbers(config, ADAPTER_NUMBERS)
        _check_choices(config, ADAPTER_CHOICES)
    _check_mining(config)
    _check_rules(
        config,
        model_rules("model", config["model"], prompted=True),
        model_rules("loss.teacher", config["loss"]["teacher"]),
        _rules(config),
        _loss_rules(config["loss"]),
    )
    for name, suite in _check_folders(config).items():
        if suite["kind"] != "retrieval":
            raise UserError(
                f"folders: {name} is of kind {suite['kind']}: expected retrieval; retrofit evaluate has others"
            )
    weights_to_try(config["export"]["interpolation"])


def check_sweep(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration can be carried out as one job of a multirun.

    Raises:
        UserError: it asks for several processes, each of which would carry out the whole multirun.
    """
    for key in ("trainer.devices", "trainer.num_nodes"):
        if _value(config, key) > 1:
            raise _error(config, key, "1 in a multirun: a run of several processes is started by itself")


def check_inspection(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration of ``retrofit inspect`` can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    _check_weights(config)
    _check_data(config)
    _check_numbers(config, INSPECT_NUMBERS)
    _check_rules(config, model_rules("model", config["model"], prompted=True))


def check_synthesis(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration of ``retrofit synthesize`` can be carried out, its data source apart.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    if config["data_source"].get("round_trip") is not None:
        _check_weights(config)
        _check_rules(config, model_rules("model", config["model"]))
    _check_numbers(config, SYNTHESIS_NUMBERS)
    _check_numbers(config, EVALUATION_NUMBERS)
    _check_choices(config, EVALUATION_CHOICES)
    _check_lists(config, ("not_queries",))


def check_evaluation(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration of ``retrofit evaluate`` can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    evaluation = config["evaluation"]
    _check_mappings(config, EVALUATION_MAPPINGS)
    _check_numbers(config, EVALUATION_NUMBERS)
    _check_choices(config, EVALUATION_CHOICES)
    of_folders = _check_folders(config)
    if not (evaluation["suites"] or of_folders or evaluation["benchmark"]):
        raise _error(config, "folders", "at least one, where evaluation has neither suites nor a benchmark")
    _check_rules(
        config,
        suite_rules(evaluation["suites"], evaluation["sources"]),
        benchmark_rules(evaluation["benchmark"]),
        _retention_rules(evaluation["retention"]),
    )


def check_encoding(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration of ``retrofit encode`` can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    _check_numbers(config, ENCODING_NUMBERS)
    _check_choices(config, ENCODING_CHOICES)
    for key, expected in (("input", "a file, a folder, a pattern with *, or a URL"), ("output", "a folder to write")):
        if not config[key]:
            raise _error(config, key, expected)


def _check_folders(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the suites of the folders that are measured beside those of the evaluation."""
    suites = suites_of_folders(config["folders"])
    twice = sorted(config["evaluation"]["suites"].keys() & suites.keys())
    if twice:
        raise _error(config, "folders", f"folders with names that differ from those of suites ({', '.join(twice)})")
    for holds, key, expected in suite_rules(suites, (), "folders"):
        if not holds:
            raise UserError(f"{key}: expected {expected}")
    return suites


def check_mining(config: Mapping[str, Any]) -> None:
    """Return if a resolved configuration of ``retrofit mine`` can be carried out.

    Raises:
        UserError: the first rule that is broken, with the key to change.
    """
    _check_data(config)
    _check_numbers(config, DATA_NUMBERS)
    if config["negatives"]["mined"] is None:
        raise UserError("negatives.mined=None: expected negatives that are mined, such as negatives=dense_filtered")
    _check_mining(config)
    _check_rules(config, tried_rules(config["tried_filters"]))
    if config["negatives"]["mined"]["model"] is None:
        _check_weights(config)
        _check_rules(config, model_rules("model", config["model"]))


def _check_mining(config: Mapping[str, Any]) -> None:
    mined = config["negatives"]["mined"]
    if mined is not None:
        _check_numbers(config, MINED_NUMBERS)
        _check_choices(config, MINED_CHOICES)
        _check_numbers(config, (n for n in ENGINE_NUMBERS if n.key.removeprefix("engine.") in config["engine"]))
        if mined["first_rank"] > mined["candidates"]:
            raise _error(config, "negatives.mined.first_rank", "at most negatives.mined.candidates")
        if not isinstance(mined["veto"], Mapping | None):
            raise _error(config, "negatives.mined.veto", "a mapping (veto@negatives.mined.veto=teacher), or null")
        veto = (mined["veto"] or {}).get("model")
        _check_rules(
            config,
            model_rules("negatives.mined.model", mined["model"]),
            mining_rules(mined),
            model_rules("negatives.mined.veto.model", veto),
        )


def _check_weights(config: Mapping[str, Any]) -> None:
    if "checkpoint" not in config["model"]:
        name = config["model"].get("name")
        raise UserError(f"model={name}: expected a model with a checkpoint; {name} is for retrofit evaluate alone")


def _check_data(config: Mapping[str, Any]) -> None:
    _check_mappings(config, ("task_mix.weights", *EVALUATION_MAPPINGS))
    _check_lists(config, DATA_LISTS)


def _check_rules(config: Mapping[str, Any], *rules: Iterable[tuple[bool, str, str]]) -> None:
    for holds, key, expected in itertools.chain(*rules):
        if not holds:
            raise _error(config, key, expected)


def _check_mappings(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if not isinstance(_value(config, key), Mapping):
            raise _error(config, key, f"a mapping; what is below it is set by its own key, such as {key}.NAME")


def _check_lists(config: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        names = _value(config, key)
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise _error(config, key, "a list, such as [NAME, NAME], or null")


def _check_choices(config: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> None:
    for key, allowed in choices.items():
        if _value(config, key) not in allowed:
            raise _error(config, key, f"one of {', '.join(map(str, allowed))}")


def _check_numbers(config: Mapping[str, Any], numbers: Iterable[Number]) -> None:
    for number in numbers:
        if not number.allows(_value(config, number.key)):
            raise _error(config, number.key, str(number))


def _rules(config: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules that span several keys."""
    batching, anchor, suites = config["batching"], config["anchor"], config["evaluation"]["suites"]
    epochs = Number("batching.epochs", 0, above=True)
    yield batching["steps"] is not None or epochs.allows(batching["epochs"]), epochs.key, f"{epochs}, or batching.steps"
    enough = batching["chunk_tokens"] >= batching["max_length"]
    yield enough, "batching.chunk_tokens", "at least batching.max_length"

    divergence = config["trainer"]["divergence"]
    settles = 2 * divergence["patience"] <= divergence["window"]
    yield settles, "trainer.divergence.patience", "at most half of trainer.divergence.window"

    tasks, weights = config["task_mix"]["tasks"], config["task_mix"]["weights"]
    known = tasks is None or set(weights) <= set(tasks)
    factors = all(Number("", 0).allows(weight) for weight in weights.values())
    yield known and factors, "task_mix.weights", "a factor of 0 or more by task, each task one of task_mix.tasks"
    left = tasks is None or any(weights.get(task, 1) > 0 for task in tasks)
    yield left, "task_mix.weights", "at least one of task_mix.tasks above 0"

    yield from optimizer_rules(config["optimizer"]["optimizer"], config["adapter"]["learning_rate"])
    yield from adapter_rules(config["adapter"])
    adapted = not anchor["texts"] or config["adapter"]["config"] is not None
    yield (
        adapted,
        "anchor.texts",
        "0 with adapter=full: the base is what is left when the adapter is switched off (anchor=none)",
    )
    idle = "0 with anchor.texts=0: there is nothing to hold (anchor=base)"
    yield anchor["texts"] or not anchor["weight"], "anchor.weight", idle
    yield anchor["tasks"] or not anchor["texts"], "anchor.tasks", "at least one task with anchor.texts (anchor=base)"
    biases = (config["adapter"]["config"] or {}).get("bias", "none")
    yield (
        not anchor["texts"] or biases == "none",
        "anchor.texts",
        f"0 with adapter.config.bias={biases}: a bias that learns stays when the adapter is switched off (anchor=none)",
    )
    yield "held_out" in suites, "evaluation.suites", "a suite named held_out"
    yield from suite_rules(suites, config["evaluation"]["sources"])
    yield from _validation_rules(config["evaluation"])
    retrieval = suites["held_out"]["kind"] == "retrieval" and "source" in suites["held_out"]
    yield retrieval, "evaluation.suites.held_out.kind", "retrieval from a source: it is what training is judged by"
    yield from _retention_rules(config["evaluation"]["retention"])
    yield from _process_rules(config)
    both_kinds = len({name.startswith("retention") for name in suites}) == 2
    yield (
        both_kinds or not isinstance(config["export"]["interpolation"], list),
        "export.interpolation",
        "one weight: to choose among several, evaluation.suites needs a suite whose name starts with 'retention' "
        "and another",
    )


def _validation_rules(evaluation: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``evaluation.validation``."""
    key = "evaluation.validation"
    # What stands there of a suite that is left out does no harm.
    changed = {name: part for name, part in evaluation["validation"].items() if name in evaluation["suites"]}
    for name, part in changed.items():
        fixed = {"kind", "source", "folder"}
        part_of_it = isinstance(part, Mapping) and not fixed & part.keys()
        yield part_of_it, f"{key}.{name}", f"a mapping with keys of the suite, none of {', '.join(sorted(fixed))}"
    suites = {name: {**evaluation["suites"][name], **part} for name, part in changed.items()}
    yield from suite_rules(suites, evaluation["sources"], key)


def _retention_rules(retention: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``evaluation.retention``."""
    for name, languages in retention["groups"].items():
        listed = isinstance(languages, list) and all(isinstance(code, str) for code in languages) and languages != []
        yield listed, f"evaluation.retention.groups.{name}", "a list of languages, such as [en, de]"


def _process_rules(config: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules for a run of several processes."""
    trainer, mined = config["trainer"], config["negatives"]["mined"]
    alone = trainer["devices"] == trainer["num_nodes"] == 1
    yield (
        alone or trainer["strategy"] != "auto",
        "trainer.strategy",
        "ddp or fsdp with more than one process (trainer.devices, trainer.num_nodes)",
    )
    on_gpu = trainer["accelerator"] == "gpu"
    yield (
        on_gpu or trainer["process_group_backend"] != "nccl",
        "trainer.process_group_backend",
        "gloo or null with trainer.accelerator=cpu",
    )
    refreshed = mined is not None and (mined["refresh_every_steps"] or mined["refresh_every_epochs"])
    yield (
        not refreshed or trainer["strategy"] != "fsdp",
        "trainer.strategy",
        "ddp where negatives are mined anew (negatives.mined.refresh_every_steps, refresh_every_epochs): "
        "one process alone cannot encode with sharded weights",
    )
    yield (
        not refreshed or trainer["loader_workers"] == 0,
        "trainer.loader_workers",
        "0 where negatives are mined anew: what is drawn ahead would not have them",
    )


def _loss_rules(loss: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules that span several keys of ``loss``."""
    learnable = Number("loss.temperature", LOWEST_LEARNT, 1)
    holds = not loss["learn_temperature"] or learnable.allows(loss["temperature"])
    yield holds, learnable.key, f"{learnable}, where it is learnt (loss.learn_temperature)"

    dimensions, weights = loss["dimensions"], loss["dimension_weights"]
    whole = dimensions is None or (
        isinstance(dimensions, list)
        and all(Number("", 1, whole=True).allows(dimension) for dimension in dimensions)
        and len(set(dimensions)) == len(dimensions) > 0
    )
    yield whole, "loss.dimensions", "a list of different whole numbers of 1 or more, or null"
    factors = weights is None or (
        isinstance(weights, list)
        and all(Number("", 0, above=True).allows(weight) for weight in weights)
        and len(weights) == len(dimensions or ())
    )
    yield factors, "loss.dimension_weights", "a number above 0 for each of loss.dimensions, or null"

    if needs_teacher(loss):
        yield loss["teacher"] is not None, "loss.teacher", "a model, such as model@loss.teacher=embedded"
    else:
        unused = "null: neither loss.guide.margin nor loss.distillation.kind asks for it"
        yield loss["teacher"] is None, "loss.teacher", unused


def _error(config: Mapping[str, Any], key: str, expected: str) -> UserError:
    return UserError(f"{key}={_value(config, key)}: expected {expected}")


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"{'.'.join(parts[:depth])}={value}: expected a mapping with the key {part}")
        value = value[part]
    return value
