"""From the specification of a suite to its tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluation.beir_folders import beir

from retrofit.commands.application import configuration_folder
from retrofit.data.storage import PairSource
from retrofit.errors import UserError
from retrofit.evaluation.suite_tasks import (
    FROM_FOLDER,
    FROM_PAIRS,
    suite_identity,
    suite_keys,
    suites_of_folders,
    tasks_of_suite,
)

FOLDER: tuple[list[Any], list[Any], str] = (
    [
        {"_id": f"{language}{number}", "text": f"{language} document {number}", "lang": language, "group": number,
         "label": "even" if number % 2 == 0 else "odd"}
        for language in ("de", "en") for number in range(6)
    ],
    [{"_id": f"q{number}", "text": f"Frage {number}", "lang": "de"} for number in range(2)],
    "q0\tde0\t1\nq1\tde1\t1\n",
)  # fmt: skip
RETRIEVAL = {
    "kind": "retrieval", "source": "own", "tasks": ["field_help"], "pool": "language", "max_queries": 2,
    "max_passages": None,
}  # fmt: skip


@pytest.mark.parametrize("folders", [None, "xquad"])
def test_folders_are_a_list(folders: Any) -> None:
    with pytest.raises(UserError, match=rf"^folders={folders}: expected a list of folders"):
        suites_of_folders(folders)


def everything() -> dict[str, dict[str, Any]]:
    """The suites of the configuration that measures everything, on the tiny corpus."""
    suites = {}
    for option in ("embedded", "everything"):
        config = yaml.safe_load((configuration_folder() / "evaluation" / f"{option}.yaml").read_text(encoding="utf-8"))
        suites |= config["suites"]
    return {
        name: suite
        | {"source": "own"}
        | {key: ["de", "en", "ja"] for key in ("languages", "document_languages") if suite.get(key)}
        | ({"min_texts_per_label": 2} if "min_texts_per_label" in suite else {})
        for name, suite in suites.items()
    }


@pytest.mark.parametrize(
    "name", [name for name in everything() if name not in ("cross_lingual", "mixed")]
)  # the groups of the tiny corpus are not parallel
def test_every_suite_of_the_configuration_has_tasks_of_its_kind(corpus: Path, name: str) -> None:
    suite = everything()[name]
    tasks = tasks_of_suite(name, suite, {"own": PairSource.open(corpus)})
    assert tasks
    assert {task.kind for task in tasks} == {suite["kind"]}
    assert {task.suite for task in tasks} == {name}
    keys = [(task.task, task.query_language, task.document_language) for task in tasks]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("kind", sorted(set(FROM_FOLDER) - {"sts"}))
def test_every_kind_is_made_of_a_folder(tmp_path: Path, kind: str) -> None:
    suite: dict[str, Any] = {"kind": kind, "folder": str(beir(tmp_path, *FOLDER))}
    if kind == "reranking":
        suite["candidates"] = 2
    if kind == "bitext":
        (tmp_path / "qrels" / "test.tsv").write_text("q0\ten0\t1\nq1\ten1\t1\n", encoding="utf-8")
    tasks = tasks_of_suite("s", suite, {})
    assert {task.kind for task in tasks} == {"retrieval" if kind in ("cross_lingual", "mixed") else kind}


def test_the_split_is_that_which_is_asked_for(corpus: Path) -> None:
    source = {"own": PairSource.open(corpus)}
    test, validation = (tasks_of_suite("s", RETRIEVAL, source, split)[0] for split in ("test", "validation"))
    assert all("test" in query for query in test.queries.values())  # type: ignore[union-attr]
    assert all("validation" in query for query in validation.queries.values())  # type: ignore[union-attr]


def test_what_changes_the_tasks_changes_the_identity(corpus: Path, tmp_path: Path) -> None:
    source = PairSource.open(corpus)
    sources = {"own": source, "same": source, "other": replace(source, folder=tmp_path / "other")}
    first = suite_identity("s", RETRIEVAL, sources)
    assert suite_identity("s", dict(reversed(RETRIEVAL.items())), sources, "test") == first
    assert suite_identity("s", RETRIEVAL | {"source": "same"}, sources) == first
    others = [
        suite_identity("t", RETRIEVAL, sources),
        suite_identity("s", RETRIEVAL, sources, "validation"),
        suite_identity("s", RETRIEVAL | {"source": "other"}, sources),
        suite_identity("s", RETRIEVAL | {"kind": "reranking"}, sources),
        suite_identity("s", RETRIEVAL | {"max_queries": 3}, sources),
    ]
    assert len({first, *others}) == 6


def test_the_identity_of_a_folder_is_that_of_its_contents_and_name(tmp_path: Path) -> None:
    def identity(path: Path) -> str:
        return suite_identity("s", {"kind": "retrieval", "folder": str(path)}, {})

    first = identity(beir(tmp_path / "here" / "set", *FOLDER))
    assert identity(beir(tmp_path / "there" / "set", *FOLDER)) == first
    assert identity(beir(tmp_path / "renamed", *FOLDER)) != first
    assert identity(beir(tmp_path / "changed" / "set", *FOLDER[:2], "q0\tde1\t1\n")) != first


def test_the_keys_of_a_kind_are_the_arguments_of_what_makes_it() -> None:
    assert suite_keys("sts", of_folder=True) == {"languages": False, "max_pairs": False}
    keys = suite_keys("retrieval", of_folder=False)
    assert keys["pool"]
    assert not keys["languages"]
    for kinds, of_folder in ((FROM_PAIRS, False), (FROM_FOLDER, True)):
        for kind in kinds:
            assert not {"source", "folder", "suite", "split"} & suite_keys(kind, of_folder=of_folder).keys()


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes an empty folder and returns its path."""

    def made(name: str, *files: str) -> str:
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(json.dumps({}), encoding="utf-8")
        return str(tmp_path / name)

    return made


def test_a_folder_says_what_it_is_unless_it_is_said(folders: Callable[..., str]) -> None:
    pages, alike = folders("pages", "corpus.jsonl"), folders("alike", "sts.jsonl.gz")
    assert suites_of_folders([pages, alike, {"path": pages, "name": "pages_long", "min_characters": 2000}]) == {
        "pages": {"kind": "retrieval", "folder": pages},
        "alike": {"kind": "sts", "folder": alike},
        "pages_long": {"kind": "retrieval", "folder": pages, "min_characters": 2000},
    }
    assert suites_of_folders([{"path": pages, "kind": "bitext", "languages": ["de"]}]) == {
        "pages": {"kind": "bitext", "folder": pages, "languages": ["de"]}
    }


def test_folders_that_cannot_be_measured_are_named(folders: Callable[..., str]) -> None:
    pages = folders("pages")
    with pytest.raises(UserError, match=r"^folders\[1\]=nowhere: no such folder"):
        suites_of_folders([pages, "nowhere"])
    with pytest.raises(UserError, match=r"^folders\[0\]=None: no such folder; expected a path, or a mapping with path"):
        suites_of_folders([{"kind": "bitext"}])
    with pytest.raises(UserError, match=r"^folders\[1\]=.*: a second suite named pages; expected another name"):
        suites_of_folders([pages, {"path": pages, "kind": "bitext"}])
