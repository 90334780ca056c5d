"""The rules that the specifications of evaluation suites must keep."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from retrofit.evaluation.labelled_tasks import Side
from retrofit.evaluation.suite_tasks import FROM_FOLDER, FROM_PAIRS, suite_keys
from retrofit.evaluation.tasks_across_languages import Relevant
from retrofit.evaluation.tasks_from_pairs import Pool
from retrofit.training.allowed_values import Number

_NUMBERS = (
    Number("max_queries", 1, whole=True, optional=True),
    Number("max_passages", 1, whole=True, optional=True),
    Number("max_sentences", 1, whole=True, optional=True),
    Number("max_pairs", 2, whole=True, optional=True),
    Number("min_characters", 1, whole=True, optional=True),
    Number("candidates", 1, whole=True),
    Number("max_labels", 2, whole=True, optional=True),
    Number("min_texts_per_label", 2, whole=True),
    Number("max_texts_per_label", 2, whole=True, optional=True),
    Number("seed", 0, whole=True),
)
_CHOICES = {"pool": get_args(Pool), "relevant": get_args(Relevant)}
_LISTS = ("tasks", "languages", "document_languages")


def suite_rules(
    suites: Mapping[str, Mapping[str, Any]], sources: Collection[str], key: str = "evaluation.suites"
) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of suites; later ones need earlier ones to hold.

    Args:
        suites: specifications by name.
        sources: names of the data sources there are.
        key: where the suites stand in the configuration.
    """
    for name, suite in suites.items():
        yield isinstance(suite, Mapping), f"{key}.{name}", f"a suite; one is left out with ~{key}.{name}"
        of_folder = "folder" in suite
        kinds = FROM_FOLDER if of_folder else FROM_PAIRS
        yield _is_one_of(suite.get("kind"), kinds), f"{key}.{name}.kind", f"one of {', '.join(kinds)}"
        if of_folder:
            exists = isinstance(suite["folder"], str) and Path(suite["folder"]).is_dir()
            yield (
                exists and "source" not in suite,
                f"{key}.{name}.folder",
                "a folder that exists, and no source beside it",
            )
        else:
            yield (
                _is_one_of(suite.get("source"), sources),
                f"{key}.{name}.source",
                f"one of {', '.join(sources)}, or a folder",
            )
        known = suite_keys(suite["kind"], of_folder=of_folder)
        for option in suite.keys() - {"kind", "folder", "source"}:
            yield option in known, f"{key}.{name}.{option}", f"one of the keys {', '.join(known)} of this kind"
        for option, needed in known.items():
            yield option in suite or not needed, f"{key}.{name}.{option}", "a value: this kind of suite needs it"
        for holds, option, expected in _value_rules(suite):
            yield holds, f"{key}.{name}.{option}", expected


def benchmark_rules(benchmark: Any) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether it holds, key, what was expected) of the rules of ``evaluation.benchmark``; null keeps them."""
    key = "evaluation.benchmark"
    if benchmark is not None:
        keys = isinstance(benchmark, Mapping) and benchmark.keys() == {"name", "task_types"}
        yield keys, key, "a mapping with name and task_types, or null"
        yield isinstance(benchmark["name"], str), f"{key}.name", "the name of a benchmark of mteb"
        yield _is_list(benchmark["task_types"]), f"{key}.task_types", "a list of types of task, such as [Retrieval]"


def _value_rules(suite: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    for number in _NUMBERS:
        if number.key in suite:
            yield number.allows(suite[number.key]), number.key, str(number)
    for option, allowed in _CHOICES.items():
        if option in suite:
            yield _is_one_of(suite[option], allowed), option, f"one of {', '.join(allowed)}"
    for option in _LISTS:
        if option in suite:
            yield suite[option] is None or _is_list(suite[option]), option, "a list of different names, or null"
    if "sides" in suite:
        allowed = get_args(Side)
        holds = _is_list(suite["sides"]) and set(suite["sides"]) <= set(allowed)
        yield holds, "sides", f"a list of {' and '.join(allowed)}"


def _is_one_of(value: Any, names: Collection[str]) -> bool:
    return isinstance(value, str) and value in names


def _is_list(value: Any) -> bool:
    """Return whether a value is a list of different texts, and not an empty one."""
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return names and len(set(value)) == len(value) > 0
