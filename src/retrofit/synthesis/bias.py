"""How far synthetic queries are from real ones of the same language, and how far real ones are from each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import jensenshannon

from retrofit.artefacts import write_text
from retrofit.data.records import content_id
from retrofit.synthesis.query_properties import PROPERTIES, VALUES, QuestionSigns, describe
from retrofit.synthesis.templates import Templates

SHARES = "bias_shares.csv"
DISTANCES = "bias_distances.csv"

LEAST = 30
"""Queries of either kind below which a language is left out: its distances would be nothing but chance."""

ALL = "all"
"""The property that stands for the mean over all."""

OTHER = "(other)"
"""All first words but the most frequent; brackets, because ``other`` is a word itself."""

_FIRST_WORDS = 30
_HALVINGS = 20
_SHARE_COLUMNS = ["language", "property", "value", "synthetic", "real"]
_DISTANCE_COLUMNS = ["language", "property", "distance", "noise", "synthetic_queries", "real_queries"]


@dataclass(frozen=True)
class Bias:
    """Synthetic queries beside real ones.

    Attributes:
        shares: ``language``, ``property``, ``value`` and the shares of ``synthetic`` and ``real`` queries that have it;
            every value of a property, in its order. First words come by frequency, ``(other)`` last.
        distances: ``language``, ``property`` (``all``: the mean over them), the Jensen-Shannon ``distance`` to base 2
            (0: the same, 1: nothing in common), the ``noise``, ``synthetic_queries``, ``real_queries``. Noise is the
            distance between two random halves of the real queries. A language with too few queries has one row, of
            ``all``, without distance and noise.
    """

    shares: pd.DataFrame
    distances: pd.DataFrame

    @property
    def left_out(self) -> list[str]:
        """Languages with too few queries of either kind."""
        return list(self.distances.loc[self.distances["distance"].isna(), "language"])


def compare_queries(
    synthetic: pd.DataFrame, real: pd.DataFrame, templates: Templates, *, least: int = LEAST, seed: int = 0
) -> Bias:
    """Return how synthetic queries differ from real ones, language by language.

    The order of the rows makes no difference, and no language makes a difference to another.

    Args:
        synthetic: columns ``language`` (of the query), ``query``, ``passage``.
        real: the same of real queries.
        templates: know the question words; in other languages a question is known by its mark alone.
        least: queries that a language needs of either kind, two at any rate.
        seed: of the halves that real queries are parted into.

    Raises:
        UserError: the templates of a language are not complete.
    """
    samples = [{str(code): rows for code, rows in frame.groupby(frame["language"].astype(str))}
               for frame in (synthetic, real)]  # fmt: skip
    shares: list[dict[str, Any]] = []
    distances: list[dict[str, Any]] = []
    for language in sorted(samples[0].keys() | samples[1].keys()):
        sizes = [len(sample.get(language, ())) for sample in samples]
        queries = dict(zip(("synthetic_queries", "real_queries"), sizes, strict=True))
        if min(sizes) < max(2, least):
            distances.append({"language": language, "property": ALL, **queries})
            continue
        signs = QuestionSigns.of_language(language, templates)
        described = [_described(sample[language], signs) for sample in samples]
        generator = np.random.default_rng([seed, content_id(language)])
        measured: list[tuple[float, float]] = []
        for name in PROPERTIES:
            counts = _counts(name, *(frame[name] for frame in described))
            distance = float(_distance(counts["synthetic"], counts["real"]))
            measured.append((distance, _noise(counts["real"], generator)))
            of_value = (counts / counts.sum()).itertuples()
            shares += [dict(zip(_SHARE_COLUMNS, (language, name, *row), strict=True)) for row in of_value]
        of_all = np.mean(measured, axis=0).tolist()
        distances += [
            {"language": language, "property": name, "distance": distance, "noise": noise, **queries}
            for name, (distance, noise) in zip((*PROPERTIES, ALL), [*measured, of_all], strict=True)
        ]
    found = pd.DataFrame(distances, columns=_DISTANCE_COLUMNS).astype({"distance": float, "noise": float})
    return Bias(pd.DataFrame(shares, columns=_SHARE_COLUMNS), found)


def write_bias(folder: Path, bias: Bias) -> None:
    """Write ``bias_shares.csv`` and ``bias_distances.csv`` into a folder; the same bias gives the same bytes."""
    for name, frame in ((SHARES, bias.shares), (DISTANCES, bias.distances)):
        write_text(folder / name, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def _described(rows: pd.DataFrame, signs: QuestionSigns) -> pd.DataFrame:
    pairs = zip(rows["query"], rows["passage"], strict=True)
    return pd.DataFrame([describe(query, passage, signs) for query, passage in pairs], columns=PROPERTIES)


def _counts(name: str, synthetic: pd.Series, real: pd.Series) -> pd.DataFrame:
    """Return how many queries of both kinds have each value of a property."""
    counts = pd.DataFrame({"synthetic": synthetic.value_counts(), "real": real.value_counts()}).fillna(0).astype(int)
    if name in VALUES:
        return counts.reindex(list(VALUES[name]), fill_value=0)
    # By share, so that the larger of the two samples does not decide which words are told apart.
    frequency = (counts / counts.sum()).sum(axis=1).round(12)
    ordered = sorted(counts.index, key=lambda word: (-frequency[word], word))
    rest = counts.loc[ordered[_FIRST_WORDS:]].sum().rename(OTHER).to_frame().T
    return pd.concat([counts.loc[ordered[:_FIRST_WORDS]], rest])


def _distance(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the Jensen-Shannon distance to base 2 of counts, over the last axis."""
    distance: npt.NDArray[np.float64] = jensenshannon(left, right, base=2, axis=-1)
    return distance


def _noise(counts: pd.Series, generator: np.random.Generator) -> float:
    """Return the mean distance between two random halves of queries, given how many have each value.

    Halves are half as large as the sample, so this is rather more than sampling does to the distance itself. One
    halving of thirty queries says little; the mean over some says more. Which queries make a half does not matter,
    only how many of each value are among them, and that is drawn.
    """
    whole = counts.to_numpy()
    halves = generator.multivariate_hypergeometric(whole, whole.sum() // 2, size=_HALVINGS)
    return float(_distance(halves, whole - halves).mean())
