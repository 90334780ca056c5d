"""What a model kept of what its reference could do: named groups of languages and tasks, and a gate for a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import pandas as pd
from langcodes import Language, standardize_tag
from langcodes.tag_parser import LanguageTagError

from retrofit.analysis.evaluated_cells import Cell
from retrofit.analysis.significance import SIGNIFICANT
from retrofit.errors import UserError

TRAINING, OTHER = "training", "other"

_MACROLANGUAGES = {"nb": "no"}  # which langcodes keeps apart


def verdict(difference: float, p_holm: float) -> str:
    """Return ``gained`` or ``lost`` where the corrected p-value is below .05, else ``kept``."""
    if p_holm >= SIGNIFICANT or difference == 0:
        return "kept"
    return "gained" if difference > 0 else "lost"


def named_languages(
    cells: Sequence[Cell], training: pd.DataFrame, groups: Mapping[str, Iterable[str]]
) -> dict[str, list[Cell]]:
    """Return cells by named group of their query's language: those of the configuration, and by what was trained on.

    Args:
        cells: of which the groups are made; a group without any is left out.
        training: the strata a model was trained on; nothing is said of training where there is none.
        groups: languages by name; ``zh`` and ``zho`` are ``zh-Hans``, ``eng-Latn`` is ``en``.
    """
    wanted = {name: {_language(code) for code in codes} for name, codes in groups.items()}
    found = {name: [cell for cell in cells if _language(cell.query_language) in its] for name, its in wanted.items()}
    if len(training):
        seen = {_language(code) for code in [*training["query_language"], *training["document_language"]]}
        found["languages trained on"] = [cell for cell in cells if _language(cell.query_language) in seen]
        found["languages not trained on"] = [cell for cell in cells if _language(cell.query_language) not in seen]
    return {name: its for name, its in found.items() if its}


def named_tasks(cells: Sequence[Cell], training: pd.DataFrame) -> dict[str, list[Cell]]:
    """Return cells by whether their task was trained on; nothing where there was no training."""
    if training.empty:
        return {}
    seen = set(training["task"])
    found = {
        "tasks trained on": [cell for cell in cells if cell.task in seen],
        "tasks not trained on": [cell for cell in cells if cell.task not in seen],
    }
    return {name: its for name, its in found.items() if its}


def domain(name: str, suite: str, cells: Iterable[Cell], training: pd.DataFrame) -> str:
    """Return whether a group is of a model's training domain: ``training`` or ``other``; empty without training.

    A suite, and a group within one, is where any of its tasks was trained on. Of the groups over all suites those that
    were not trained on, by language or task, and those of the configuration are ``other``.
    """
    if training.empty:
        return ""
    over_all = not suite and name not in ("languages trained on", "tasks trained on")
    if over_all or name == "tasks not trained on":
        return OTHER
    return TRAINING if {cell.task for cell in cells} & set(training["task"]) else OTHER


def check_retention(comparison: pd.DataFrame, max_drop: float | None) -> None:
    """Return unless a model lost more than is allowed outside its training domain.

    Judged are the suites, the named groups within suites and the named groups over all suites whose ``domain`` is
    ``other`` (:func:`domain`): the training domain itself, peers and bases are not, nor are single tasks and languages,
    of which there are many and small ones. A group fails where its value fell by more than ``max_drop`` and the fall is
    significant: p of the paired randomisation below .05 after Holm's correction over the model's rows of the same kind.

    Args:
        comparison: columns of ``comparison.csv``.
        max_drop: ``evaluation.retention.max_drop``, in the unit of the values (0.01 is one point of 100); null lets
            everything pass.

    Raises:
        UserError: what fell and by how much, the largest fall first.
    """
    if max_drop is None:
        return
    judged = comparison[comparison["level"].isin(["suite", "group"]) & (comparison["domain"] == OTHER)]
    fell = judged[(judged["verdict"] == "lost") & (judged["difference"] < -max_drop)].sort_values("difference")
    if len(fell):
        raise UserError(f"evaluation.retention.max_drop={max_drop}: {'; '.join(_falls(fell))}")


def _falls(fell: pd.DataFrame) -> Iterator[str]:
    for row in fell.itertuples():
        of = f" of {row.suite}" if row.level == "group" and row.suite else ""
        change = f"{row.reference_value:.4f} to {row.value:.4f} ({row.difference:+.4f}, p {row.p_holm:.4f})"
        yield f"{row.model} fell on {row.group}{of} from {change}"


@cache
def _language(code: str) -> tuple[str, str | None]:
    """Return the language and script of a code, however it is spelled.

    A macrolanguage and what it mostly is are one: ``cmn`` is ``zh``, ``arb`` is ``ar``, ``nb`` is ``no``; ``yue`` and
    ``nn`` are languages of their own.
    """
    try:
        full = Language.get(standardize_tag(code, macro=True)).maximize()
    except LanguageTagError:
        return code, None
    if full.language is None or code.lower().startswith("und"):  # which would be en
        return code, None
    return _MACROLANGUAGES.get(full.language, full.language), full.script
