"""From spooled rows to pairs: rows merged, splits chosen, positives shared, leaks removed, all on integers.

Texts stay on disk until a pair is written; in memory are some dozen bytes for every row, positive and negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from retrofit.data.records import SPLITS, Pair, shown_id
from retrofit.data.sources.refusals import Reason, Refusals, RefusedRowError, Row
from retrofit.data.sources.spool import UNSAID
from retrofit.data.splits import Leaks, find_leaks, split_of
from retrofit.data.storage import read_records

_TRAIN = SPLITS.index("train")


@dataclass(frozen=True)
class Links:
    """Passages of pairs, ordered by pair; all arrays have one item a link.

    Attributes:
        pair: number of the pair; int64.
        passage: identifier of the passage; uint64.
        row: row of the spool that holds its text; int64.
        place: place in that row's list; int64.
    """

    pair: np.ndarray
    passage: np.ndarray
    row: np.ndarray
    place: np.ndarray

    def take(self, which: np.ndarray) -> Links:
        """Return the links of a mask or of indices."""
        return Links(self.pair[which], self.passage[which], self.row[which], self.place[which])

    def joined(self, other: Links) -> Links:
        """Return the links of both; of one pair, its own come first."""
        arrays = [np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)]
        return Links(*arrays).take(np.argsort(arrays[0], kind="stable"))

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.pair, self.passage, self.row, self.place


@dataclass
class Merged:
    """Pairs as they will be written; arrays by pair have one item a pair.

    Attributes:
        table: the spool.
        rows: the first row of each pair; int64.
        splits: place in ``SPLITS`` of each pair; int8.
        kept: whether it is written; bool.
        positives: links to the positives of the pairs that are written.
        negatives: links to their negatives.
        merged: rows that went into a pair that was there already.
        shared: positives that pairs got from others that ask the same.
        answering_negatives: negatives left out as they are known to answer the query.
        leaks: what was dropped to keep the splits apart, by reason.
    """

    table: pa.Table
    rows: np.ndarray
    splits: np.ndarray
    kept: np.ndarray
    positives: Links
    negatives: Links
    merged: int
    shared: int
    answering_negatives: int
    leaks: Counter[str]

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs in the order of their first rows."""
        table, kept = self.table, np.flatnonzero(self.kept)
        columns = {name: table[name] for name in ("query", "task", "language", "document_language", "source")}
        positives, negatives = table["positives"], table["negatives"]
        positive_ends = np.searchsorted(self.positives.pair, kept, "right")
        negative_ends = np.searchsorted(self.negatives.pair, kept, "right")
        positive_start = negative_start = 0
        for pair, positive_end, negative_end in zip(kept, positive_ends, negative_ends, strict=True):
            row = int(self.rows[pair])
            yield Pair(
                positives=_texts(positives, self.positives, positive_start, positive_end),
                negatives=_texts(negatives, self.negatives, negative_start, negative_end),
                group=_group(table, row),
                split=SPLITS[self.splits[pair]],
                **{name: column[row].as_py() for name, column in columns.items()},
            )
            positive_start, negative_start = positive_end, negative_end


def merge(spool: Path, refusals: Refusals, derive_splits: bool = True) -> Merged:
    """Return the pairs of spooled rows.

    Args:
        spool: the file of a ``SpoolWriter``.
        refusals: takes the exact duplicates.
        derive_splits: whether a held-out split that the source lacks is taken from its training groups.
    """
    table = read_records(spool)
    fresh = _without_duplicates(table, refusals)
    pair_of_row = np.full(len(table), -1)
    pair_of_row[fresh], _ = pd.factorize(table["pair_key"].to_numpy()[fresh])
    _, first = np.unique(pair_of_row[fresh], return_index=True)
    rows = np.flatnonzero(fresh)[first]

    splits = _splits(table, rows, derive_splits)
    questions, _ = pd.factorize(table["question_key"].to_numpy()[rows])
    positives = _links(table["positive_ids"], pair_of_row)
    shared = _shared(table, rows, splits, questions, positives)
    positives = positives.joined(shared)
    leaks = find_leaks(splits, table["query_text_id"].to_numpy()[rows], positives.pair, positives.passage)
    kept_positives = positives.take(leaks.kept_positives & leaks.kept_pairs[positives.pair])

    negatives = _links(table["negative_ids"], pair_of_row)
    negatives = negatives.take(leaks.kept_pairs[negatives.pair])
    answering = np.isin(
        _combined(questions[negatives.pair], negatives.passage), _combined(questions[positives.pair], positives.passage)
    )
    negatives = _without_leaks(negatives.take(~answering), splits, leaks)
    return Merged(
        table,
        rows,
        splits,
        leaks.kept_pairs,
        kept_positives,
        negatives,
        int(fresh.sum()) - len(rows),
        len(shared.pair),
        int(answering.sum()),
        leaks.counts,
    )


def _without_duplicates(table: pa.Table, refusals: Refusals) -> np.ndarray:
    """Return whether each row is the first of its content (bool), and account for the others."""
    fresh: np.ndarray = ~pd.Series(table["row_key"].to_numpy()).duplicated().to_numpy()
    for row in np.flatnonzero(~fresh).tolist():
        where = Row(table["file"][row].as_py(), table["number"][row].as_py())
        refusals.add(where, RefusedRowError(Reason.DUPLICATE_ROW))
    return fresh


def _links(identifiers: pa.ChunkedArray, pair_of_row: np.ndarray) -> Links:
    """Return the passages of a list column, each once a pair."""
    lengths = pc.list_value_length(identifiers).to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    links = Links(pair_of_row[row], pc.list_flatten(identifiers).to_numpy(), row, place)
    links = links.take(links.pair >= 0)
    links = links.take(np.argsort(links.pair, kind="stable"))
    return links.take(~pd.DataFrame({"pair": links.pair, "passage": links.passage}).duplicated().to_numpy())


def _splits(table: pa.Table, rows: np.ndarray, derive: bool) -> np.ndarray:
    """Return the split of each pair, as places in ``SPLITS`` (int8).

    What the source says stands, except that a held-out split it lacks may be taken from its training groups.
    """
    splits: np.ndarray = table["split"].to_numpy()[rows].copy()
    if not derive and (splits != UNSAID).all():
        return splits
    stated = set(np.unique(splits).tolist())
    for pair in np.flatnonzero((splits == UNSAID) | (splits == _TRAIN)).tolist():
        fell = SPLITS.index(split_of(_group(table, int(rows[pair]))))
        if splits[pair] == UNSAID or fell not in stated:
            splits[pair] = fell
    return splits


def _shared(table: pa.Table, rows: np.ndarray, splits: np.ndarray, questions: np.ndarray, links: Links) -> Links:
    """Return the links pairs get from others that ask the same, as far as the passage stands in their split."""
    repeated = np.bincount(questions)[questions] > 1
    asking = np.flatnonzero(repeated)
    language_of_row, _ = pd.factorize(_labels(table["document_language"]))
    pools = splits.astype(np.int64) + len(SPLITS) * language_of_row[rows]
    answers = links.take(repeated[links.pair])
    known = pd.DataFrame(
        {"question": questions[answers.pair], "passage": answers.passage, "row": answers.row, "place": answers.place}
    ).drop_duplicates(["question", "passage"])
    asked = pd.DataFrame({"question": questions[asking], "pair": asking})
    offered = asked.merge(known, on="question")
    own = np.isin(
        _combined(offered["pair"].to_numpy(), offered["passage"].to_numpy()), _combined(answers.pair, answers.passage)
    )
    offered = offered[~own]
    in_pool = np.isin(
        _combined(pools[offered["pair"].to_numpy()], offered["passage"].to_numpy()),
        _combined(pools[links.pair], links.passage),
    )
    offered = offered[in_pool]
    return Links(*(offered[name].to_numpy() for name in ("pair", "passage", "row", "place")))


def _without_leaks(negatives: Links, splits: np.ndarray, leaks: Leaks) -> Links:
    own = splits[negatives.pair]
    holders = leaks.held_out.holders(negatives.passage, own)
    for split, holder in zip(own[holders != own].tolist(), holders[holders != own].tolist(), strict=True):
        leaks.counts[f"{SPLITS[split]}: negative also in {SPLITS[holder]}"] += 1
    return negatives.take(holders == own)


def _combined(numbers: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Return one uint64 for each small number and passage: the number is spread over all bits before they are mixed."""
    combined: np.ndarray = passages ^ (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return combined


def _labels(column: pa.ChunkedArray) -> np.ndarray:
    """Return the codes of a label column; its dictionary only grows, so one code means one label in every chunk."""
    codes: np.ndarray = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return codes


def _group(table: pa.Table, row: int) -> str:
    """Return the group a row names, else the content of its first positive."""
    group = table["group"][row].as_py()
    return shown_id(table["positive_ids"][row].values[0].as_py()) if group is None else str(group)


def _texts(column: pa.ChunkedArray, links: Links, start: int, end: int) -> tuple[str, ...]:
    span = zip(links.row[start:end].tolist(), links.place[start:end].tolist(), strict=True)
    return tuple(column[row].values[place].as_py() for row, place in span)
