"""Mined negatives: never an answer, in the right language, the same every time, and used by the batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrofit.data.batching import BatchContents, PlannedBatches
from retrofit.data.curation.artefact import Curation
from retrofit.data.curation.texts import normalised
from retrofit.data.records import Pair, to_table
from retrofit.data.sampling import Mixture, SamplingPlan
from retrofit.data.selection import select, strata
from retrofit.data.storage import PairSource
from retrofit.data.training_data import TrainingData
from retrofit.models.embeddings import EmbeddingStore
from retrofit.models.precision import EncodingSettings
from retrofit.models.search_model import SearchModel
from retrofit.negatives.false_negatives import hidden_positives, rates
from retrofit.negatives.mined import MinedNegatives
from retrofit.negatives.mining import Miner, mine
from retrofit.negatives.pool import MiningPool

Compose = Callable[..., dict[str, Any]]
ENCODING = EncodingSettings("float32", 512)


def pair(query: str, *positives: str, language: str = "de", task: str = "help", group: str = "g") -> Pair:
    return Pair(query, positives, task, language, language, "made up", group, "train")


PAIRS = [
    *(pair(f"Frage {n}", f"Antwort {n} zu Lampe {n % 4}", f"Erklärung {n}") for n in range(12)),
    *(pair(f"question {n}", f"answer {n} on lamp {n % 4}", language="en") for n in range(12)),
    pair("Frage 0", "Antwort  3 zu LAMPE 3", task="title"),  # reads like the answer to question 3
]


def training_data(pairs: list[Pair]) -> TrainingData:
    source = PairSource(Path("0123456789abcdef"), to_table(pairs), None, {})
    rows = select(source.pairs, "train")
    return TrainingData(source, Curation(rows, source.pairs.slice(0, 0), {}), rows)


@pytest.fixture
def model(tiny: Path) -> SearchModel:
    return SearchModel(tiny, "mean", {"query": "query: ", "passage": "passage: "}, 64)


@pytest.fixture
def mined(train_config: Compose, model: SearchModel, tmp_path: Path) -> Callable[..., MinedNegatives]:
    def run(
        pairs: list[Pair] = PAIRS, option: str = "dense", searcher: SearchModel = model, **changes: Any
    ) -> MinedNegatives:
        config = train_config(f"negatives={option}")["negatives"]["mined"]
        return mine(training_data(pairs), searcher, {**config, **changes}, ENCODING, tmp_path)

    return run


def texts(pairs: list[Pair], negatives: MinedNegatives) -> list[list[str]]:
    """The negatives of every pair, as texts."""
    found = []
    for homes in negatives.homes.tolist():
        found.append([pairs[row].positives[slot] for row, slot in homes if row >= 0])
    return found


def answers_to(pairs: list[Pair], query: Pair) -> set[str]:
    same = [each for each in pairs if (each.query, each.language) == (query.query, query.language)]
    return {normalised(text) for each in same for text in each.positives}


@pytest.mark.parametrize("option", ["dense", "dense_filtered", "bm25", "hybrid", "cross_lingual"])
@pytest.mark.parametrize("sampling", ["top", "random", "weighted"])
def test_a_negative_never_answers_and_has_the_language_asked_for(
    mined: Callable[..., MinedNegatives], option: str, sampling: str
) -> None:
    # The tiny model's scores say nothing: with a margin no passage of another language would be left.
    negatives = mined(option=option, sampling=sampling, **({"margin": None} if option == "cross_lingual" else {}))
    language_of = {text: each.language for each in PAIRS for text in each.positives}
    total = 0
    for query, found in zip(PAIRS, texts(PAIRS, negatives), strict=True):
        assert len(set(found)) == len(found)
        assert not {normalised(text) for text in found} & answers_to(PAIRS, query)
        assert {language_of[text] == query.language for text in found} <= {option != "cross_lingual"}
        total += len(found)
    assert total > len(PAIRS)
    report = negatives.report
    assert sum(report["rejected"].values()) == report["candidates"]
    assert total == report["chosen"] + report["filled_at_random"]
    assert negatives.homes[..., 0].size == total + report["left_open"]


def test_dense_takes_the_most_similar_passages_that_do_not_answer(
    mined: Callable[..., MinedNegatives], model: SearchModel
) -> None:
    encoder = model.load()
    german = [each for each in PAIRS if each.language == "de"]
    passages = sorted({text for each in german for text in each.positives})
    vectors = encoder.encode(passages, "passage")
    for query, found in zip(PAIRS, texts(PAIRS, mined()), strict=True):
        if query.language != "de":
            continue
        scores = vectors @ encoder.encode([query.query], "query")[0]
        known = answers_to(PAIRS, query)
        ranked = [passages[place] for place in np.argsort(-scores) if normalised(passages[place]) not in known]
        best = dict(zip(passages, scores.tolist(), strict=True))
        assert [best[text] for text in found] == pytest.approx([best[text] for text in ranked[:4]], abs=1e-5)


def test_the_margin_keeps_negatives_below_every_positive(
    mined: Callable[..., MinedNegatives], model: SearchModel
) -> None:
    encoder = model.load()
    for query, found in zip(PAIRS, texts(PAIRS, mined(margin=0.01, fill=False)), strict=True):
        vector = encoder.encode([query.query], "query")[0]
        lowest = min(encoder.encode(list(query.positives), "passage") @ vector)
        assert all(
            encoder.encode([text], "passage")[0] @ vector <= lowest - abs(lowest) * 0.01 + 1e-5 for text in found
        )


def test_other_embeddings_are_other_negatives(
    mined: Callable[..., MinedNegatives], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mined()
    monkeypatch.setattr("retrofit.negatives.mining.EMBEDDINGS_VERSION", -1)
    mined()
    assert len([path for path in (tmp_path / "negatives").iterdir() if path.is_dir()]) == 2


def test_mining_is_done_once_and_again_for_other_settings(mined: Callable[..., MinedNegatives], tmp_path: Path) -> None:
    def stored() -> set[str]:
        return {path.name for path in (tmp_path / "negatives").iterdir() if path.is_dir()}

    first = mined()
    names = stored()
    again = mined(per_query=2, memory_mb=128)  # neither changes what is found
    np.testing.assert_array_equal(first.homes, again.homes)
    assert stored() == names
    mined(margin=0.1)
    mined(pairs=PAIRS[:-1])
    assert len(stored()) == 3


def test_each_visit_takes_the_next_negatives() -> None:
    homes = np.stack([np.arange(12).reshape(3, 4), np.zeros((3, 4), dtype=int)], axis=2)
    homes[1, 3] = -1
    negatives = MinedNegatives(np.array([5, 7, 9]), homes, {})
    assert negatives.of(np.array([7, 5]), np.array([0, 1]), 2)[:, 0].tolist() == [4, 5, 2, 3]
    assert negatives.of(np.array([7]), np.array([1]), 2)[:, 0].tolist() == [6, 4]
    assert negatives.of(np.array([9]), np.array([2]), 3)[:, 0].tolist() == [10, 11, 8]


def test_no_visit_is_spent_on_gaps_and_none_takes_a_negative_twice() -> None:
    homes = np.full((3, 4, 2), -1)
    homes[0, :2, 0], homes[1, :1, 0] = [4, 5], [6]
    homes[:, :, 1][homes[:, :, 0] >= 0] = 0
    negatives = MinedNegatives(np.array([5, 7, 9]), homes, {})

    def taken(row: int, count: int) -> list[list[int]]:
        return [negatives.of(np.array([row]), np.array([visit]), count)[:, 0].tolist() for visit in range(4)]

    assert taken(5, 1) == [[4], [5], [4], [5]]
    assert taken(5, 2) == [[4, 5]] * 4
    assert [sorted(visit) for visit in taken(5, 3)] == [[4, 5]] * 4
    assert taken(7, 3) == [[6]] * 4
    assert taken(9, 2) == [[]] * 4


def test_batches_hold_the_mined_negatives_and_mask_answers(mined: Callable[..., MinedNegatives]) -> None:
    data, negatives = training_data(PAIRS), mined()
    plan = SamplingPlan(strata(data.source.pairs, data.rows), 4, 8, Mixture(), 0)

    def batches(count: int) -> PlannedBatches:
        contents = BatchContents(mined_negatives=count)
        return PlannedBatches(data.source.pairs, plan, lambda texts, _: [[1]] * len(texts), contents, None, negatives)

    of_pair = dict(zip((each.query + each.task for each in PAIRS), texts(PAIRS, negatives), strict=True))
    for step in range(8):
        plain, hard = batches(0).texts(step), batches(2).texts(step)
        added = hard.passages[len(plain.passages) :]
        expected = {text for query in hard.queries for text in of_pair[query + "help"]}
        assert set(added) <= expected
        assert added
        for row, query in zip(hard.relevance.tolist(), hard.queries, strict=True):
            known = {text for each in PAIRS if each.query == query for text in each.positives}
            for text, entry in zip(hard.passages, row, strict=True):
                assert (entry != -1) == (text in known)


TEXT = st.sampled_from("abcdef")


@given(st.lists(st.tuples(st.sampled_from("qrs"), st.lists(TEXT, min_size=1, max_size=3, unique=True)), min_size=2))
@settings(max_examples=40)
def test_the_pool_knows_every_answer(asked: list[tuple[str, list[str]]]) -> None:
    pairs = [pair(query, *positives, group=str(n)) for n, (query, positives) in enumerate(asked)]
    table = to_table(pairs)
    pool = MiningPool.of(table, np.arange(len(pairs)))
    passages = pool.passage_texts(np.arange(len(pool.passage_ids)))
    assert sorted(passages) == sorted({text for each in pairs for text in each.positives})
    every = np.tile(np.arange(len(passages)), (len(pairs), 1))
    for query, known in zip(pairs, pool.is_known(every), strict=True):
        answers = {text for each in pairs if each.query == query.query for text in each.positives}
        assert {passages[place] for place in np.flatnonzero(known)} == answers
    assert pool.query_texts(np.arange(len(pairs))) == [each.query for each in pairs]


def test_a_hidden_answer_that_comes_back_is_counted(train_config: Compose, model: SearchModel, tmp_path: Path) -> None:
    data = training_data(PAIRS)
    pool = MiningPool.of(data.source.pairs, data.rows)
    hidden = hidden_positives(pool, 0)
    assert sorted(hidden[:, 0].tolist()) == list(range(12))  # only those queries have two answers of their own
    for query, passage in hidden.tolist():
        (text,) = pool.passage_texts(np.array([passage]))
        assert text in PAIRS[query].positives
    settings = {**train_config("negatives=dense")["negatives"]["mined"], "candidates": 40}
    miner = Miner(pool, model, settings, ENCODING, EmbeddingStore(tmp_path))
    tried: list[dict[str, Any]] = [{}, {"margin": 5.0}, {"first_rank": 3}, {"near_duplicates": 0.1}]
    none, wide, deep, near = rates(miner, miner.search(), tried, 0)
    assert none["hidden"] == 12
    assert none["found"] == none["kept"] == 1.0  # 40 candidates are the whole pool of German passages
    assert 0 <= none["false_1"] <= none["false_4"] <= 1
    assert none["false_1_low"] <= none["false_1"] <= none["false_1_high"]
    assert wide["kept"] == wide["false_4"] == wide["negatives"] == 0
    assert none["negatives"] - deep["negatives"] == 2
    assert near["negatives"] < none["negatives"]
    assert [row["filters"] for row in (none, wide, deep, near)] == [
        "none", "margin 5", "first_rank 3", "near_duplicates 0.1",
    ]  # fmt: skip


def test_the_whole_source_is_searched_when_asked() -> None:
    data = training_data(PAIRS)
    half = TrainingData(data.source, data.curation, data.rows[::2])
    pool = MiningPool.of(data.source.pairs, half.rows, data.curation.kept)
    own = MiningPool.of(data.source.pairs, half.rows)
    assert set(own.passage_ids.tolist()) < set(pool.passage_ids.tolist())
    assert len(pool.passage_ids) == len({text for each in PAIRS for text in each.positives})
    assert pool.query_texts(np.arange(len(half.rows))) == [each.query for each in PAIRS[::2]]
    for query, passage in pool.answers.tolist():
        (text,) = pool.passage_texts(np.array([passage]))
        assert text in PAIRS[::2][query].positives
    of_pool, of_own = ({(each.passage_ids[n], code) for n, code in each.memberships.tolist()} for each in (pool, own))
    assert of_own < of_pool


def test_a_text_that_stands_in_two_languages_is_a_negative_in_both(mined: Callable[..., MinedNegatives]) -> None:
    """Its first holder's language was its only one, and a language whose texts all stand in others first had none."""
    english = [pair(f"question {n}", f"model {n} of lamp", language="en") for n in range(5)]
    german = [pair(f"Frage {n}", f"model {n} of lamp") for n in range(5)]
    italian = [pair("domanda", "lampada", language="it")]
    pairs = [*english, *german, *italian]
    for fill in (False, True):
        found = texts(pairs, mined(pairs, fill=fill))
        for query, negatives in zip(pairs[:10], found[:10], strict=True):
            assert set(negatives) == {each.positives[0] for each in english} - set(query.positives)
        assert found[10] == []
    elsewhere = texts(pairs, mined(pairs, option="cross_lingual", margin=None, count=6, fill=False))
    assert set(elsewhere[0]) == {each.positives[0] for each in [*german[1:], *italian]}
    assert set(elsewhere[10]) == {each.positives[0] for each in german}
    pool = MiningPool.of(to_table(pairs), np.arange(len(pairs)))
    assert len(pool.passage_ids) == 6
    assert pool.memberships.tolist() == sorted(pool.memberships.tolist())
    assert len(pool.memberships) == 11


NEAR = [
    pair("Wie hoch?", "Der Turm am Fluss ist neunzig Meter hoch und alt.", "Neunzig."),
    pair("Wer baute ihn?", "Der Turm am Fluss ist neunzig Meter hoch und alt"),
    pair("Wo steht er?", "Der Turm steht am Fluss."),
]


def test_near_duplicates_of_an_answer_are_told_by_their_shingles(mined: Callable[..., MinedNegatives]) -> None:
    plain = texts(NEAR, mined(NEAR, fill=False))
    strict = texts(NEAR, mined(NEAR, fill=False, near_duplicates=0.8))
    assert NEAR[1].positives[0] in plain[0]
    assert strict[0] == [NEAR[2].positives[0]]
    assert set(strict[1]) == {"Neunzig.", NEAR[2].positives[0]}
    assert sorted(plain[2]) == sorted(strict[2])


@pytest.fixture
def reranker(tiny: Path, tmp_path: Path) -> dict[str, Any]:
    """A cross-encoder that knows nothing, as a configuration names it."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    folder = tmp_path / "reranker"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = BertForSequenceClassification(AutoConfig.from_pretrained(tiny, num_labels=1, initializer_range=0.5))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    checkpoint = {"_target_": "retrofit.models.checkpoints.hub_checkpoint", "name": str(folder)}
    return {"checkpoint": checkpoint, "max_length": 64}


def own_scores(reranker: dict[str, Any], query: Pair, passages: list[str]) -> list[float]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(reranker["checkpoint"]["name"], max_length=64)
    return model.predict([(query.query, text) for text in passages]).tolist() if passages else []


@pytest.mark.parametrize("search", ["dense", "bm25", "hybrid"])
def test_a_reranker_orders_and_bounds_what_was_found(
    mined: Callable[..., MinedNegatives], reranker: dict[str, Any], search: str
) -> None:
    margin = 0.001
    negatives = mined(search=search, reranker=reranker, margin=margin, fill=False)
    assert (negatives.homes >= 0).any()
    for query, found in zip(PAIRS[:6], texts(PAIRS, negatives), strict=False):
        scores = own_scores(reranker, query, found)
        assert scores == sorted(scores, reverse=True)
        lowest = min(own_scores(reranker, query, list(query.positives)))
        assert all(score <= lowest - abs(lowest) * margin + 1e-6 for score in scores)


def test_a_reranker_may_veto(mined: Callable[..., MinedNegatives], reranker: dict[str, Any]) -> None:
    veto = {"model": None, "reranker": reranker, "margin": 0.0}
    plain, vetoed = mined(fill=False, count=40), mined(fill=False, count=40, veto=veto)
    assert vetoed.report["rejected"]["veto"] > 0
    for query, free, found in zip(PAIRS[:6], texts(PAIRS, plain), texts(PAIRS, vetoed), strict=False):
        lowest = min(own_scores(reranker, query, list(query.positives)))
        scores = dict(zip(free, own_scores(reranker, query, free), strict=True))
        assert found == [text for text in free if scores[text] <= lowest]


def test_a_teacher_may_veto_and_another_one_is_another_artefact(
    mined: Callable[..., MinedNegatives], tiny: Path, tmp_path: Path
) -> None:
    checkpoint = {"_target_": "retrofit.models.checkpoints.hub_checkpoint", "name": str(tiny)}
    model = {"checkpoint": checkpoint, "pooling": "cls", "prompts": {"query": "q ", "passage": "p "}, "max_length": 32}
    mined(fill=False)
    for margin in (0.0, 5.0):
        vetoed = mined(fill=False, veto={"model": model, "reranker": None, "margin": margin})
    assert vetoed.report["rejected"]["kept"] == 0
    assert len([path for path in (tmp_path / "negatives").iterdir() if path.is_dir()]) == 3


def test_a_sentence_transformers_folder_searches_as_it_is(
    mined: Callable[..., MinedNegatives], load_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from retrofit.models.adapters import merged_weights
    from retrofit.models.export import export_sentence_transformer

    encoder = load_tiny(max_length=64)
    export_sentence_transformer(encoder, merged_weights(encoder), tmp_path / "exported")
    teacher = SearchModel(tmp_path / "exported", None, None, None)
    texts_of = [text for each in PAIRS for text in each.positives]
    for kind in ("query", "passage"):
        vectors = teacher.load().encode(texts_of, kind, 512, "float32", "")  # type: ignore[arg-type]
        np.testing.assert_allclose(vectors, encoder.encode(texts_of, kind), atol=1e-5)
    np.testing.assert_array_equal(mined(searcher=teacher).homes, mined().homes)
    assert teacher.embedding_identity("query") != teacher.embedding_identity("passage")
