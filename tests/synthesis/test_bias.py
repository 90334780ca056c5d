"""Synthetic beside real queries: shares and distances by hand, against a naive reference, and what must always hold."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.commands.application import configuration_folder
from retrofit.synthesis.bias import DISTANCES, OTHER, SHARES, Bias, compare_queries, write_bias
from retrofit.synthesis.query_properties import PROPERTIES
from retrofit.synthesis.templates import Templates

TEMPLATES = Templates(Path(configuration_folder()) / "synthesis")


def queries(*texts: str | tuple[str, str], language: str = "de") -> pd.DataFrame:
    pairs = [(text, "") if isinstance(text, str) else text for text in texts]
    return pd.DataFrame([(language, *pair) for pair in pairs], columns=["language", "query", "passage"])


def compare(synthetic: pd.DataFrame, real: pd.DataFrame, least: int = 1, seed: int = 0) -> Bias:
    return compare_queries(synthetic, real, TEMPLATES, least=least, seed=seed)


def shares(bias: Bias, name: str, language: str = "de") -> dict[str, tuple[float, float]]:
    rows = bias.shares[(bias.shares["property"] == name) & (bias.shares["language"] == language)]
    return {row.value: (row.synthetic, row.real) for row in rows.itertuples()}


def distances(bias: Bias, column: str = "distance", language: str = "de") -> dict[str, float]:
    rows = bias.distances[bias.distances["language"] == language]
    return dict(zip(rows["property"], rows[column], strict=True))


def naive_distance(left: Sequence[str], right: Sequence[str]) -> float:
    """Return the Jensen-Shannon distance as it is defined."""
    ours, theirs = Counter(left), Counter(right)
    divergence = 0.0
    for value in ours.keys() | theirs.keys():
        p, q = ours[value] / len(left), theirs[value] / len(right)
        divergence += sum(share * math.log2(share / ((p + q) / 2)) for share in (p, q) if share) / 2
    return math.sqrt(max(0.0, divergence))


def test_shares_by_hand() -> None:
    synthetic = queries(("Was ist das?", "das ist es"), ("was ist das", "x"), ("Lampe", "Lampe"), ("Lampe", ""))
    bias = compare(synthetic, queries("die Lampe ist dort rot.", ("Lampe", "lampe")))
    assert {key: both for key, both in shares(bias, "length").items() if sum(both)} == {
        "0–1": (0.5, 0.5), "3": (0.5, 0.0), "5": (0.0, 0.5),
    }  # fmt: skip
    assert shares(bias, "first_word") == {"lampe": (0.5, 0.5), "die": (0.0, 0.5), "was": (0.5, 0.0), OTHER: (0.0, 0.0)}
    assert list(shares(bias, "first_word")) == ["lampe", "die", "was", OTHER]
    assert {key: both for key, both in shares(bias, "copying").items() if sum(both)} == {
        "0–10%": (0.5, 0.5), "60–70%": (0.25, 0.0), "90–100%": (0.25, 0.5),
    }  # fmt: skip
    assert shares(bias, "query_type") == {
        "question_with_mark": (0.25, 0.0),
        "question_without_mark": (0.25, 0.0),
        "one_to_three_words": (0.5, 0.5),
        "longer_phrase": (0.0, 0.0),
        "sentence": (0.0, 0.5),
    }


def test_distances_by_hand() -> None:
    bias = compare(queries("eins", "eins"), queries("eins", "eins zwei drei vier"))
    # (1, 0) beside (1/2, 1/2): their mean is (3/4, 1/4), and the divergence 3/2 - 3/4 log2(3).
    half = math.sqrt(1.5 - 0.75 * math.log2(3))
    expected = {"length": half, "first_word": 0.0, "copying": 0.0, "query_type": half, "all": half / 2}
    assert distances(bias) == pytest.approx(expected, abs=1e-12)
    # Two real queries have one way of being parted, into one and one.
    assert distances(bias, "noise") == pytest.approx(
        {"length": 1.0, "first_word": 0.0, "copying": 0.0, "query_type": 1.0, "all": 0.5}
    )
    assert bias.distances[["synthetic_queries", "real_queries"]].to_numpy().tolist() == [[2, 2]] * 5


WORDS = st.sampled_from(["was", "lampe", "licht", "rot", "wo", "haus", "nacht"])
TEXTS = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
QUERIES = st.builds(str.__add__, TEXTS, st.sampled_from(["", "?", "."]))
SAMPLES = st.lists(st.tuples(QUERIES, TEXTS), min_size=2, max_size=12)


def naive_values(query: str, passage: str) -> dict[str, str]:
    """Return the properties of a query of plain lower-case words."""
    words = query.rstrip("?.").split()
    tenth = min(9, math.floor(10 * sum(word in passage.split() for word in words) / len(words) + 1e-9))
    if query.endswith("?"):
        kind = "mark"
    elif words[0] in ("was", "wo"):
        kind = "question"
    elif len(words) <= 3:
        kind = "few"
    else:
        kind = "sentence" if query.endswith(".") else "phrase"
    length = next(end for end in (1, 2, 3, 4, 5, 7, 10) if len(words) <= end)
    return {"length": str(length), "first_word": words[0], "copying": str(tenth), "query_type": kind}


@given(SAMPLES, SAMPLES)
def test_distances_are_those_of_a_naive_count(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> None:
    found = distances(compare(queries(*left), queries(*right)))
    for name in PROPERTIES:
        values = [[naive_values(*pair)[name] for pair in sample] for sample in (left, right)]
        assert found[name] == pytest.approx(naive_distance(*values), abs=1e-7), name
    assert found["all"] == pytest.approx(sum(found[name] for name in PROPERTIES) / 4)


@given(SAMPLES, SAMPLES)
def test_distances_are_symmetric_and_bounded(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> None:
    there, back = compare(queries(*left), queries(*right)), compare(queries(*right), queries(*left))
    assert distances(there) == pytest.approx(distances(back), abs=1e-7)
    for column in ("distance", "noise"):
        assert there.distances[column].between(0, 1 + 1e-12).all()
    sums = there.shares.groupby("property")[["synthetic", "real"]].sum()
    assert sums.to_numpy() == pytest.approx(1.0)


@given(SAMPLES, st.integers(1, 3))
def test_the_same_queries_have_no_distance(sample: list[tuple[str, str]], times: int) -> None:
    bias = compare(queries(*sample * times), queries(*reversed(sample)))
    assert distances(bias) == pytest.approx(dict.fromkeys((*PROPERTIES, "all"), 0.0), abs=1e-7)


def test_nothing_in_common_is_a_distance_of_one() -> None:
    bias = compare(queries(*[("was ist das?", "das ist was")] * 3), queries(*["rotes Licht in der Nacht"] * 2))
    assert distances(bias) == pytest.approx(dict.fromkeys((*PROPERTIES, "all"), 1.0))
    assert distances(bias, "noise") == dict.fromkeys((*PROPERTIES, "all"), 0.0)  # real ones are all the same


def mixed_queries(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)  # noqa: S311 -- no secret
    words = ["was", "wo", "die", "das", "rot", "lampe"]
    return [" ".join(generator.choices(words, k=generator.randint(1, 8))) for _ in range(count)]


def test_noise_is_the_distance_of_random_halves() -> None:
    real = mixed_queries(101, 1)
    noise = distances(compare(queries("was", "wo"), queries(*real)), "noise")
    generator = random.Random(2)  # noqa: S311 -- no secret
    for name in ("length", "first_word", "query_type"):
        values = [naive_values(query, "")[name] for query in real]
        found = []
        for _ in range(400):
            generator.shuffle(values)
            found.append(naive_distance(values[:50], values[50:]))
        assert noise[name] == pytest.approx(sum(found) / len(found), rel=0.2), name
    assert noise["copying"] == 0.0
    assert noise["all"] == pytest.approx(sum(noise[name] for name in PROPERTIES) / 4)


def test_queries_of_one_kind_are_as_near_as_noise() -> None:
    bias = compare(queries(*mixed_queries(400, 3)), queries(*mixed_queries(400, 4)))
    assert 0 < distances(bias)["all"] < 1.2 * distances(bias, "noise")["all"] < 0.2


def test_neither_order_nor_other_languages_make_a_difference() -> None:
    synthetic, real = queries(*mixed_queries(40, 5)), queries(*mixed_queries(60, 6))
    alone = compare(synthetic, real)
    japanese = queries("東京の住所", "何ですか", "天気", language="ja")
    both = compare(pd.concat([japanese, synthetic[::-1]]), pd.concat([real[::-1], japanese]))
    pd.testing.assert_frame_equal(
        both.distances[both.distances["language"] == "de"].reset_index(drop=True), alone.distances
    )
    pd.testing.assert_frame_equal(both.shares[both.shares["language"] == "de"].reset_index(drop=True), alone.shares)
    assert distances(both, language="ja") == pytest.approx(dict.fromkeys((*PROPERTIES, "all"), 0.0))
    assert distances(compare(synthetic, real, seed=1)) == distances(alone)
    assert distances(compare(synthetic, real, seed=1), "noise") != distances(alone, "noise")


def test_thirty_first_words_are_told_apart_by_share_not_by_number() -> None:
    # Of real queries there are few, but each of their words is more frequent among them than any synthetic one.
    real = queries(*(f"r{number}" for number in range(10)))
    synthetic = queries(*(f"s{number:02d}" for number in range(40) for _ in range(5)), "other")
    found = shares(compare(synthetic, real), "first_word")
    assert list(found) == [f"r{n}" for n in range(10)] + [f"s{n:02d}" for n in range(20)] + [OTHER]
    assert found[OTHER] == pytest.approx((101 / 201, 0.0))


def test_languages_with_too_few_queries_are_listed() -> None:
    def sample(counts: dict[str, int]) -> pd.DataFrame:
        return pd.concat([queries(*["Lampe"] * count, language=code) for code, count in counts.items()])

    bias = compare_queries(
        sample({"de": 30, "fr": 29, "en": 300, "it": 50}), sample({"de": 30, "fr": 99, "en": 29, "pl": 40}), TEMPLATES
    )
    assert bias.left_out == ["en", "fr", "it", "pl"]
    assert set(bias.shares["language"]) == {"de"}
    listed = bias.distances[bias.distances["language"] != "de"]
    assert listed["property"].tolist() == ["all"] * 4
    assert listed["synthetic_queries"].tolist() == [300, 29, 50, 0]
    assert listed["real_queries"].tolist() == [29, 99, 0, 40]
    assert listed[["distance", "noise"]].isna().all(axis=None)


def test_a_single_query_is_no_distribution() -> None:
    assert compare(queries("eins"), queries("eins", "zwei"), least=0).left_out == ["de"]
    assert compare(queries("eins", "zwei"), queries("eins"), least=0).left_out == ["de"]


def test_columns_of_labels_and_no_queries_at_all() -> None:
    labels = queries("eins", "zwei").astype({"language": pd.CategoricalDtype(["de", "en"])})
    assert compare(labels, labels).distances["language"].tolist() == ["de"] * 5
    nothing = compare(queries(), queries())
    assert (len(nothing.shares), len(nothing.distances), nothing.left_out) == (0, 0, [])


def test_files_hold_the_tables(tmp_path: Path) -> None:
    real = queries("null", "nan nan", "eins zwei drei", language="nan")
    bias = compare(pd.concat([queries("null", "eins", language="nan"), queries("x", language="no")]), real)
    write_bias(tmp_path, bias)
    written = (tmp_path / SHARES).read_bytes(), (tmp_path / DISTANCES).read_bytes()
    kept = {"keep_default_na": False}
    found = pd.read_csv(tmp_path / SHARES, **kept)
    pd.testing.assert_frame_equal(found, bias.shares, check_dtype=False, atol=1e-6)
    assert set(found.loc[found["property"] == "first_word", "value"]) == {"null", "nan", "eins", OTHER}
    found = pd.read_csv(tmp_path / DISTANCES, **kept, na_values={"distance": [""], "noise": [""]})
    pd.testing.assert_frame_equal(found, bias.distances, check_dtype=False, atol=1e-6)
    write_bias(tmp_path, bias)
    assert written == ((tmp_path / SHARES).read_bytes(), (tmp_path / DISTANCES).read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == [DISTANCES, SHARES]
