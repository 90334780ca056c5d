"""From the specification of a suite to its tasks: which kinds there are, and what each of them is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrofit.artefacts import fingerprint
from retrofit.data.records import Split
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.evaluation.bitext_tasks import bitext_tasks_from_folder, bitext_tasks_from_pairs
from retrofit.evaluation.judged_folder import FOLDERS_KEY, SIMILARITY_FILES, folder_fingerprint
from retrofit.evaluation.labelled_tasks import (
    classification_tasks_from_folder,
    classification_tasks_from_pairs,
    clustering_tasks_from_folder,
    clustering_tasks_from_pairs,
)
from retrofit.evaluation.reranking_tasks import reranking_tasks_from_folder, reranking_tasks_from_pairs
from retrofit.evaluation.tasks import Task
from retrofit.evaluation.tasks_across_languages import (
    cross_lingual_tasks_from_folder,
    cross_lingual_tasks_from_pairs,
    mixed_tasks_from_folder,
    mixed_tasks_from_pairs,
)
from retrofit.evaluation.tasks_from_folder import similarity_tasks, tasks_from_beir
from retrofit.evaluation.tasks_from_pairs import tasks_from_pairs

# Raise it whenever the same specification and the same data would give other tasks.
CODE_VERSION = 3

FROM_PAIRS: Mapping[str, Callable[..., Sequence[Task]]] = {
    "retrieval": tasks_from_pairs,
    "cross_lingual": cross_lingual_tasks_from_pairs,
    "mixed": mixed_tasks_from_pairs,
    "reranking": reranking_tasks_from_pairs,
    "bitext": bitext_tasks_from_pairs,
    "clustering": clustering_tasks_from_pairs,
    "classification": classification_tasks_from_pairs,
}
"""What makes the tasks of a suite with a ``source``: called with source, suite, split and the suite's other keys."""

FROM_FOLDER: Mapping[str, Callable[..., Sequence[Task]]] = {
    "retrieval": tasks_from_beir,
    "cross_lingual": cross_lingual_tasks_from_folder,
    "mixed": mixed_tasks_from_folder,
    "reranking": reranking_tasks_from_folder,
    "bitext": bitext_tasks_from_folder,
    "sts": similarity_tasks,
    "clustering": clustering_tasks_from_folder,
    "classification": classification_tasks_from_folder,
}
"""What makes the tasks of a suite with a ``folder``: called with folder, suite and the suite's other keys."""


def tasks_of_suite(
    suite: str, specification: Mapping[str, Any], sources: Mapping[str, PairSource], split: Split = "test"
) -> list[Task]:
    """Return the tasks of a suite.

    Args:
        suite: its name.
        specification: ``kind``; ``source`` (one of ``sources``) or ``folder`` (a path); and the arguments of the
            function of that kind in ``FROM_PAIRS`` or ``FROM_FOLDER``.
        sources: data sources by name.
        split: the split of the source that is measured; a folder is judged for test only, whatever is asked.

    Raises:
        UserError: the suite cannot be made of what the source or the folder holds.
    """
    options = dict(specification)
    kind = options.pop("kind")
    if "folder" in options:
        return list(FROM_FOLDER[kind](Path(options.pop("folder")), suite, **options))
    return list(FROM_PAIRS[kind](sources[options.pop("source")], suite, split, **options))


def suite_identity(
    suite: str, specification: Mapping[str, Any], sources: Mapping[str, PairSource], split: Split = "test"
) -> str:
    """Return 16 hex digits that identify the tasks of a suite, without making them; arguments as `tasks_of_suite`."""
    rest = {key: value for key, value in specification.items() if key not in ("source", "folder")}
    if "folder" in specification:
        folder = Path(specification["folder"])
        data = {"folder": folder_fingerprint(folder), "name": folder.resolve().name}
    else:
        data = {"source": sources[specification["source"]].fingerprint, "split": split}
    return fingerprint({"version": CODE_VERSION, "suite": suite, "data": data, "specification": rest})


def suite_keys(kind: str, *, of_folder: bool) -> dict[str, bool]:
    """Return the further keys of a suite's specification, and whether each of them must be there.

    Args:
        kind: what kind of tasks it has; one of ``FROM_FOLDER`` or ``FROM_PAIRS``.
        of_folder: whether they are made of a folder.
    """
    builder = (FROM_FOLDER if of_folder else FROM_PAIRS)[kind]
    given = ("folder", "suite") if of_folder else ("source", "suite", "split")
    return {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in inspect.signature(builder).parameters.items()
        if name not in given
    }


def suites_of_folders(folders: Sequence[str | Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the suites that BEIR folders are measured with, by name.

    Args:
        folders: each a path, or a mapping with ``path`` and, where they differ from what the folder says, ``name`` (of
            the suite; else the folder's), ``kind`` (else ``sts`` where it holds ``sts.jsonl``, ``retrieval`` where it
            does not) and the further keys of that kind.

    Raises:
        UserError: there is no list, a folder does not exist, a mapping has no path, or two suites have one name.
    """
    if not isinstance(folders, list):
        raise UserError(f"{FOLDERS_KEY}={folders}: expected a list of folders, which may be empty")
    suites: dict[str, dict[str, Any]] = {}
    for number, asked in enumerate(folders):
        options = dict(asked) if isinstance(asked, Mapping) else {"path": asked}
        path = options.pop("path", None)
        if not isinstance(path, str) or not Path(path).is_dir():
            raise UserError(f"{FOLDERS_KEY}[{number}]={path}: no such folder; expected a path, or a mapping with path")
        name = options.pop("name", None) or Path(path).resolve().name
        if not isinstance(name, str):
            raise UserError(f"{FOLDERS_KEY}[{number}].name={name}: expected a name; quote what is a number")
        if name in suites:
            raise UserError(
                f"{FOLDERS_KEY}[{number}]={path}: a second suite named {name}; expected another name (name)"
            )
        kind = "sts" if any((Path(path) / file).exists() for file in SIMILARITY_FILES) else "retrieval"
        suites[name] = {"kind": kind, "folder": path, **options}
    return suites
