"""Sets of the Hugging Face hub, or local copies of them, read with ``datasets``: rows of pairs, or BEIR's layout."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrofit.data.records import SPLITS, Passage, Split
from retrofit.data.sources.beir import BeirTables
from retrofit.data.sources.building import Intake, build_source
from retrofit.data.sources.columns import ExampleReader, RowMapping
from retrofit.data.sources.files import find_files, fingerprints
from retrofit.data.sources.judged import take_judged
from retrofit.data.sources.refusals import Row
from retrofit.data.sources.validation import Rules, check_count
from retrofit.errors import UserError


@dataclass(frozen=True)
class HubSet:
    """A set of the hub.

    Attributes:
        path: its name on the hub, or a local folder of the same form.
        revision: branch, tag or commit; null takes the newest there is when the source is first built.
        streaming: read while it is downloaded and keep no copy; else it is kept in ``HF_HUB_CACHE``.
        rows: most rows of each table of pairs, the first ones; null takes all.
    """

    path: str | None
    revision: str | None
    streaming: bool
    rows: int | None

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError(
                "data_source.path=null: expected the name of a set on the hub, or a folder of the same form"
            )
        check_count("data_source.rows", self.rows, optional=True)

    def inputs(self) -> dict[str, Any]:
        """Return what identifies its content: of a local folder the files, else name and revision."""
        described = dataclasses.asdict(self)
        if Path(str(self.path)).is_dir():
            files = find_files(self.path)
            described.update(path=None, files=fingerprints(files))
        return described

    def read(self, config: str | None, split: str, rows: int | None = None) -> Iterator[Row]:
        """Yield the rows of a split.

        Args:
            config: one of the set's configurations; None takes its only or default one.
            split: one of that configuration's splits.
            rows: most rows; None takes all.

        Raises:
            UserError: the set cannot be reached, or has no such configuration or split.
        """
        import datasets
        from huggingface_hub.errors import HfHubHTTPError

        name = "/".join(part for part in (self.path, config, split) if part)
        try:
            table = datasets.load_dataset(
                self.path, config, split=split, revision=self.revision, streaming=self.streaming
            )
            for number, values in enumerate(itertools.islice(table, rows), start=1):
                yield Row(name, number, values)
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            HfHubHTTPError,
            datasets.exceptions.DatasetsError,
        ) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"data_source.path={self.path}: {name} cannot be read: {reason}; expected a set of the hub that is in "
                "reach or was downloaded before (HF_HUB_CACHE), or a local folder of the same form (data_source.path)"
            ) from error


def build_hub(
    *,
    name: str,
    hub: HubSet,
    configs: Mapping[str, str | None],
    split: str,
    mapping: RowMapping,
    rules: Rules,
    licence: str | None,
    cache: Path,
) -> Path:
    """Return the folder of a source made of a hub set's rows, building it first if the cache does not hold it.

    Args:
        name: name of the source.
        hub: the set.
        configs: its configuration by language; null is the default one. The languages are those of the queries, unless
            the column map names a field for them.
        split: the split of the set to read; its rows are divided into our splits by group.
        mapping: how a row becomes a pair; ``{language}`` in a column stands for the language of the configuration.
        rules: what a row must keep.
        licence: of the texts, for the report.
        cache: root of the cache.

    Raises:
        UserError: the set cannot be read, too many rows cannot be used, or no pair is left.
    """
    if not configs or not isinstance(configs, Mapping):
        expected = "the set's configuration by language, e.g. {en: default}"
        raise UserError(f"data_source.configs={configs}: expected {expected}")
    readers = [(ExampleReader(mapping.for_language(code)), config) for code, config in configs.items()]
    inputs = {
        "hub": hub.inputs(),
        "configs": dict(configs),
        "split": split,
        "mapping": dataclasses.asdict(mapping),
        "rules": dataclasses.asdict(rules),
    }

    def read(intake: Intake) -> None:
        for reader, config in readers:
            intake.take_all(hub.read(config, split, hub.rows), reader.read)
            intake.checks.append(reader.check_seen)

    return build_source(cache, "hub", name, licence, rules, inputs, read)


@dataclass(frozen=True)
class HubTables:
    """Where a hub set in BEIR's layout has its tables; ``{language}`` stands for each of the languages.

    Attributes:
        languages: as the names of the configurations have them.
        corpus: configuration and split of the documents.
        queries: configuration and split of the queries.
        qrels: configuration of the judgements.
        qrels_splits: the set's split by ours.
    """

    languages: list[str]
    corpus: list[str]
    queries: list[str]
    qrels: str
    qrels_splits: Mapping[Split, str]

    def __post_init__(self) -> None:
        if not self.languages or not self.qrels_splits:
            raise UserError("data_source.languages, data_source.qrels_splits: expected at least one of each")
        if not isinstance(self.languages, list) or not all(isinstance(code, str) for code in self.languages):
            raise UserError(f"data_source.languages={self.languages}: expected a list of codes, such as [en, de]")
        if not isinstance(self.qrels_splits, Mapping) or not self.qrels_splits.keys() <= set(SPLITS):
            expected = "the set's split by ours, {train: …, validation: …, test: …}"
            raise UserError(f"data_source.qrels_splits={self.qrels_splits}: expected {expected}")
        for key in ("corpus", "queries"):
            if not isinstance(getattr(self, key), list) or len(getattr(self, key)) != 2:
                raise UserError(f"data_source.{key}={getattr(self, key)}: expected [configuration, split]")

    def of_language(self, hub: HubSet, language: str) -> BeirTables:
        """Return the tables of one language."""

        def reader(config: str, split: str, rows: int | None = None) -> Callable[[], Iterator[Row]]:
            return lambda: hub.read(config.replace("{language}", language), split, rows)

        judgements = {ours: reader(self.qrels, theirs, hub.rows) for ours, theirs in self.qrels_splits.items()}
        (documents, in_corpus), (queries, in_queries) = self.corpus, self.queries
        return BeirTables(reader(documents, in_corpus), reader(queries, in_queries), judgements)


def build_hub_beir(
    *,
    name: str,
    hub: HubSet,
    tables: HubTables,
    mapping: RowMapping,
    rules: Rules,
    keep_corpus: bool,
    licence: str | None,
    cache: Path,
) -> Path:
    """Return the folder of a source made of a hub set in BEIR's layout, building it first if the cache lacks it.

    Args:
        name: name of the source.
        hub: the set; its ``rows`` limit the judgements of each split and language.
        tables: where its tables are.
        mapping: its task and languages.
        rules: what a row must keep.
        keep_corpus: whether all documents can be searched, or only those that answer a query.
        licence: of the texts, for the report.
        cache: root of the cache.

    Raises:
        UserError: the set cannot be read, too many rows cannot be used, or no pair is left.
    """
    inputs = {
        "hub": hub.inputs(),
        "tables": dataclasses.asdict(tables),
        "mapping": dataclasses.asdict(mapping),
        "rules": dataclasses.asdict(rules),
        "keep_corpus": keep_corpus,
    }

    def passages(intake: Intake) -> Iterator[Passage]:
        for language in tables.languages:
            of_language = dataclasses.replace(mapping, language=language)
            yield from take_judged(intake, tables.of_language(hub, language), of_language, rules, keep_corpus)

    return build_source(
        cache, "hub_beir", name, licence, rules, inputs, lambda intake: intake.write_passages(passages(intake))
    )
