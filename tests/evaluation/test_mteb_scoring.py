"""Every kind of task as mteb scores it: against the fast path, and against naive computations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from retrofit.data.records import content_id, shown_id
from retrofit.errors import UserError
from retrofit.evaluation import mteb_scoring
from retrofit.evaluation.evaluate import evaluate
from retrofit.evaluation.metrics import METRICS
from retrofit.evaluation.mteb_models import encode_options, mteb_model
from retrofit.evaluation.mteb_scoring import ITEM_SCHEMA, LEXICAL_KINDS, TaskScores, item_groups, score_task
from retrofit.evaluation.mteb_tasks import MAIN_METRIC, mteb_task
from retrofit.evaluation.tasks import BitextTask, ClassificationTask, ClusteringTask, RetrievalTask, SimilarityTask
from retrofit.evaluation.text_embeddings import TextEmbeddings
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.precision import EncodingSettings

SETTINGS = EncodingSettings("float32", 512)

WORDS = {
    "de": ["Adresse", "Brücke", "Gerät", "Kennwort", "Licht", "Sensor", "Schlüssel", "Dienst"],
    "en": ["address", "bridge", "device", "password", "light", "sensor", "key", "service"],
    "ja": ["住所", "橋", "機器", "暗証", "照明", "感知器", "鍵", "接続"],
}


def embeddings(encoder: Any) -> TextEmbeddings:
    return TextEmbeddings(encoder, SETTINGS, "tiny")


def items(scores: TaskScores, metric: str) -> dict[str, float]:
    rows = scores.items.filter(pc.equal(scores.items["metric"], metric)).to_pylist()
    assert len(rows) == len({row["item_id"] for row in rows})
    return {row["item_id"]: row["value"] for row in rows}


def retrieval(suite: str, language: str, document_language: str, seed: int, **further: Any) -> RetrievalTask:
    """A task with queries of several positives, graded, and passages that are there twice under other ids."""
    generator = np.random.default_rng(seed)

    def phrase(of: str, length: int) -> str:
        return " ".join(generator.choice(WORDS[of], size=length))

    queries = {f"q{number}": f"{phrase(language, 2)} {number}" for number in range(12)}
    texts = [phrase(document_language, 3) for _ in range(60)]
    corpus = {f"p{number}": text for number, text in enumerate([*texts, *texts[:40], *texts[:40]])}
    qrels = {
        query_id: {f"p{place}": int(generator.integers(1, 4)) for place in generator.choice(140, size=4, replace=False)}
        for query_id in queries
    }
    return RetrievalTask(suite, "made_up", language, document_language, queries, corpus, qrels, **further)


SUITES = {
    "one_language": [("de", "de"), ("en", "en"), ("ja", "ja")],
    "cross_lingual": [("de", "en"), ("ja", "de")],
    "mixed": [("en", "ja")],
}


def assert_same(encoder: Any, tasks: Sequence[RetrievalTask]) -> None:
    """Fail unless mteb gives what the fast path gives, for every query and every cell."""
    fast = evaluate(encoder, tasks, SETTINGS).to_pylist()
    store = embeddings(encoder)
    for task in tasks:
        scores = score_task(task, store)
        key = (task.suite, task.query_language, task.document_language)
        rows = [row for row in fast if (row["suite"], row["query_language"], row["document_language"]) == key]
        assert len(rows) == len(task.queries)
        for metric in METRICS:
            found = items(scores, metric)
            assert found == pytest.approx({row["query_id"]: row[metric] for row in rows}, abs=1e-6)
            assert scores.values[metric] == pytest.approx(np.mean([row[metric] for row in rows]), abs=1e-6)


@pytest.mark.parametrize("suite", SUITES)
def test_the_fast_path_gives_what_mteb_gives(encoder: BiEncoder, suite: str) -> None:
    assert_same(encoder, [retrieval(suite, *pair, seed=number) for number, pair in enumerate(SUITES[suite])])


def test_blanks_around_a_passage_change_nothing(encoder: BiEncoder) -> None:
    task = retrieval("s", "de", "de", seed=0)
    blanks = replace(task, corpus={key: f"  {text} \n" for key, text in task.corpus.items()})
    assert_same(encoder, [blanks])
    store = embeddings(encoder)
    score_task(blanks, store)
    assert store.encoded_texts == len({*task.queries.values()}) + len({*task.corpus.values()})


class Grid:
    """An encoder whose scores are exact in float32, so that scores tie wherever two texts have one vector."""

    def encode(self, texts: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
        rows = [np.random.default_rng(content_id(text) % 30).permutation([1, 1, 1, 1, 0, 0, 0, 0]) for text in texts]
        return np.array(rows, dtype=np.float32) / 2


def test_the_fast_path_breaks_ties_as_mteb_does_with_its_own_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb.models import SearchEncoderWrapper

    class EncoderAlone:
        """What of our model is not a search."""

        def __init__(self, model: Any) -> None:
            self.encode, self.similarity = model.encode, model.similarity
            self.similarity_pairwise, self.mteb_model_meta = model.similarity_pairwise, model.mteb_model_meta

    def own(model: Any) -> Any:
        return SearchEncoderWrapper(EncoderAlone(mteb_model(model)))

    def uncut(task: Any) -> Any:
        made = mteb_task(task)
        made._top_k = 1000  # at a cut, which of several equal passages mteb's search keeps is left to chance
        return made

    monkeypatch.setattr(mteb_scoring, "mteb_model", own)
    monkeypatch.setattr(mteb_scoring, "mteb_task", uncut)
    tasks = [retrieval("ties", *pair, seed=number) for number, pair in enumerate(SUITES["one_language"])]
    assert_same(Grid(), tasks)


def test_mteb_rounds_what_we_do_not(encoder: BiEncoder) -> None:
    task = retrieval("s", "de", "de", seed=3)
    reported = mteb_task(task).evaluate(mteb_model(embeddings(encoder)), "test", encode_kwargs=encode_options())
    scores = score_task(task, embeddings(encoder))
    for metric in METRICS:
        assert scores.values[metric] == pytest.approx(reported["default"][metric], abs=5.1e-6)
    assert scores.values["ndcg_at_1"] == reported["default"]["ndcg_at_1"]
    assert reported["default"]["main_score"] == reported["default"][MAIN_METRIC["retrieval"]]


def test_candidates_are_put_in_order(encoder: BiEncoder) -> None:
    task = retrieval("s", "en", "en", seed=5)
    candidates = {
        query_id: list(dict.fromkeys([*grades, *(f"p{place}" for place in range(20, 28))]))
        for query_id, grades in task.qrels.items()
    }
    reranking = retrieval("s", "en", "en", seed=5, candidates=candidates)
    assert reranking.kind == "reranking"
    scores = score_task(reranking, embeddings(encoder))
    for query_id, text in task.queries.items():
        vectors = encoder.encode([task.corpus[passage_id] for passage_id in candidates[query_id]], "passage")
        cosines = (vectors @ encoder.encode([text], "query")[0]).round(5).tolist()
        ranked = [key for _, key in sorted(zip(cosines, candidates[query_id], strict=True), reverse=True)]
        places = [place for place, passage_id in enumerate(ranked, start=1) if passage_id in task.qrels[query_id]]
        precision = np.mean([number / place for number, place in enumerate(places, start=1)])
        assert items(scores, "map_at_1000")[query_id] == pytest.approx(precision, abs=1e-6)
    assert scores.values[MAIN_METRIC["reranking"]] == pytest.approx(
        np.mean(list(items(scores, "map_at_1000").values())), abs=1e-6
    )


def test_bitext_is_the_nearest_translation(encoder: BiEncoder) -> None:
    sentences = [f"{word} {number}" for number in range(5) for word in WORDS["de"]]
    translations = [f"{word} {number}" for number in range(5) for word in WORDS["en"]]
    task = BitextTask("s", "t", "de", "en", sentences, translations, [f"{text} in all languages" for text in sentences])
    scores = score_task(task, embeddings(encoder))
    nearest = np.argmax(encoder.encode(sentences, "query") @ encoder.encode(translations, "query").T, axis=1)
    right = nearest == np.arange(len(sentences))
    assert 0 < right.sum() < len(right)
    assert items(scores, "accuracy") == {
        shown_id(content_id(text)): float(found) for text, found in zip(sentences, right, strict=True)
    }
    assert item_groups(task) == {shown_id(content_id(text)): f"{text} in all languages" for text in sentences}
    assert item_groups(task).keys() == items(scores, "accuracy").keys()
    assert item_groups(replace(task, groups=())) == {}
    assert scores.values["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    expected = f1_score(np.arange(len(sentences)), nearest, average="weighted", zero_division=0)
    assert scores.values[MAIN_METRIC["bitext"]] == pytest.approx(expected, abs=1e-6)


def test_sts_is_the_rank_correlation_of_cosines(encoder: BiEncoder) -> None:
    first = [f"{word} {number}" for number in range(3) for word in WORDS["en"]]
    second = [f"{word} {number + 1}" for number in range(3) for word in reversed(WORDS["en"])]
    gold = np.random.default_rng(0).integers(0, 100, size=len(first)).astype(float)
    scores = score_task(SimilarityTask("s", "t", "en", "en", first, second, list(gold)), embeddings(encoder))
    cosines = (encoder.encode(first, "query") * encoder.encode(second, "query")).sum(axis=1)
    assert scores.values[MAIN_METRIC["sts"]] == pytest.approx(spearmanr(cosines, gold)[0], abs=1e-6)
    found = items(scores, "cosine")
    assert list(found.values()) == pytest.approx(list(cosines), abs=1e-5)
    assert list(items(scores, "gold").values()) == list(gold)
    assert list(items(scores, "gold")) == list(found)


class Labelled:
    """An encoder whose vectors say which label a text has, more or less.

    Attributes:
        noise: spread of a text's vector about that of its label.
    """

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode(self, texts: Sequence[str], *arguments: Any, **options: Any) -> np.ndarray:
        rows = []
        for text in texts:
            vector = np.random.default_rng(content_id(text)).normal(scale=self.noise, size=16)
            vector[int(text.split()[0])] += 1
            rows.append(vector / np.linalg.norm(vector))
        return np.array(rows, dtype=np.float32)


TEXTS = [f"{label} text {number}" for label in range(4) for number in range(40)]
LABELS = [f"label {text[0]}" for text in TEXTS]


def test_clusters_that_lie_apart_are_found() -> None:
    task = ClusteringTask("s", "t", "en", "en", TEXTS, LABELS)
    apart, together = (score_task(task, embeddings(Labelled(noise))) for noise in (0.01, 50.0))
    assert apart.values[MAIN_METRIC["clustering"]] == pytest.approx(1)
    assert 0 <= together.values["v_measure"] < 0.3
    for scores in (apart, together):
        repetitions = items(scores, "v_measure")
        assert len(repetitions) == 10
        assert scores.values["v_measure"] == pytest.approx(np.mean(list(repetitions.values())), abs=1e-6)


def test_labels_that_lie_apart_are_told_and_others_by_chance() -> None:
    learnt = [f"{label} learnt {number}" for label in range(4) for number in range(20)]
    task = ClassificationTask("s", "t", "en", "en", learnt, [f"label {text[0]}" for text in learnt], TEXTS, LABELS)
    apart, together = (score_task(task, embeddings(Labelled(noise))) for noise in (0.01, 1e6))
    assert apart.values[MAIN_METRIC["classification"]] == 1
    assert together.values["accuracy"] == pytest.approx(0.25, abs=0.1)
    for scores in (apart, together):
        assert set(items(scores, "accuracy")) == {shown_id(content_id(text)) for text in TEXTS}
        assert scores.values["accuracy"] == pytest.approx(np.mean(list(items(scores, "accuracy").values())), abs=1e-6)


SMALL: Mapping[str, Callable[[], Any]] = {
    "retrieval": lambda: retrieval("s", "en", "en", seed=0),
    "reranking": lambda: retrieval("s", "en", "en", seed=0, candidates={f"q{n}": ["p1", "p2"] for n in range(12)}),
    "bitext": lambda: BitextTask("s", "a/b", "de", "en", TEXTS[:9], TEXTS[9:18]),
    "sts": lambda: SimilarityTask("s", "t", "en", "en", TEXTS[:9], TEXTS[9:18], list(range(9))),
    "clustering": lambda: ClusteringTask("s", "t", "mixed", "mixed", TEXTS, LABELS),
    "classification": lambda: ClassificationTask(
        "s", "t", "en", "en", TEXTS[::2], LABELS[::2], TEXTS[1::2], LABELS[1::2]
    ),
}


def test_languages_are_written_as_mteb_writes_them() -> None:
    tasks = [retrieval("s", "de", "ja", seed=0), SMALL["clustering"]()]
    assert [mteb_task(task).metadata.eval_langs for task in tasks] == [["deu-Latn", "jpn-Jpan"], ["mul-Zyyy"]]


class Counting:
    """An encoder that counts what it is asked."""

    def __init__(self, encoder: BiEncoder) -> None:
        self.encoder = encoder
        self.asked: list[tuple[str, str]] = []

    def encode(self, texts: Sequence[str], kind: Any, *arguments: Any, **options: Any) -> np.ndarray:
        self.asked += [(kind, text) for text in texts]
        return self.encoder.encode(texts, kind, *arguments, **options)


def test_every_text_is_encoded_once_for_all_tasks_and_symmetric_kinds_get_the_prompt_of_queries(
    encoder: BiEncoder,
) -> None:
    counting = Counting(encoder)
    store = embeddings(counting)
    assert set(SMALL) == set(MAIN_METRIC)
    for kind, make in SMALL.items():
        scores = score_task(make(), store)
        assert MAIN_METRIC[kind] in scores.values
        assert scores.items.schema.equals(ITEM_SCHEMA)
        if kind not in LEXICAL_KINDS:
            assert {kind for kind, text in counting.asked if text in TEXTS} == {"query"}
    assert len(counting.asked) == len(set(counting.asked)) == store.encoded_texts
    assert store.seconds > 0


class SharedWords:
    """A searcher that counts the words a query shares with a passage."""

    def index(self, passages: Sequence[str]) -> Callable[[Sequence[str]], np.ndarray]:
        words = [set(passage.split()) for passage in passages]

        def scores(queries: Sequence[str]) -> np.ndarray:
            return np.array([[len(set(query.split()) & found) for found in words] for query in queries])

        return scores


def test_a_lexical_searcher_is_measured_on_what_needs_no_vectors() -> None:
    task = retrieval("s", "en", "en", seed=0)
    scores = score_task(task, SharedWords())
    for query_id, text in task.queries.items():
        shared = {key: len(set(text.split()) & set(passage.split())) for key, passage in task.corpus.items()}
        ranked = sorted(shared, key=lambda passage_id: (shared[passage_id], passage_id), reverse=True)
        places = [place for place, passage_id in enumerate(ranked[:10], start=1) if passage_id in task.qrels[query_id]]
        assert items(scores, "mrr_at_10")[query_id] == pytest.approx(1 / places[0] if places else 0)
    assert scores.values["mrr_at_10"] > 0
    reranked = items(score_task(SMALL["reranking"](), SharedWords()), "ndcg_at_10")
    assert set(reranked) == set(task.queries)
    for kind in set(SMALL) - set(LEXICAL_KINDS):
        with pytest.raises(UserError, match=f"{kind}.*embeds texts"):
            score_task(SMALL[kind](), SharedWords())


def test_mteb_is_imported_when_something_is_scored_only() -> None:
    modules = ["evaluate", "mteb_benchmark", "mteb_models", "mteb_scoring", "mteb_tasks"]
    imports = "; ".join(f"import retrofit.evaluation.{module}" for module in modules)
    check = f"import sys; {imports}; sys.exit(any(name.split('.')[0] == 'mteb' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
