"""What tests of several packages share: a tiny model, a tiny corpus, and a configuration that trains in seconds."""

from __future__ import annotations

import os

# Before any library looks: a test that needs a hub is wrong, and warnings of forked tokenizers help no one.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models gain nothing from threads, and lose much where tests share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from retrofit.commands.application import configuration_folder
from retrofit.data.records import Pair, Split
from retrofit.data.storage import PAIRS, REPORT, write_pairs
from retrofit.models.bi_encoder import BiEncoder
from retrofit.models.checkpoints import tiny_checkpoint

# The first example of a process may have to load a model, and the machine may be busy: how long it takes says nothing.
hypothesis.settings.register_profile("retrofit", deadline=None)
hypothesis.settings.load_profile("retrofit")

# Tests interrupt processes that they start, which would ignore it where pytest itself was started so (nohup).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROMPTS: dict[Any, str] = {"query": "query: ", "passage": "passage: "}

LANGUAGES = ("de", "en", "ja")
WORDS = {
    "de": ["Adresse", "Brücke", "Gerät", "Kennwort", "Licht", "Sensor", "Schlüssel", "Dienst", "Fenster", "Uhr"],
    "en": ["address", "bridge", "device", "password", "light", "sensor", "key", "service", "window", "clock"],
    "ja": ["住所", "橋", "機器", "暗証", "照明", "感知器", "鍵", "接続", "窓", "時計"],
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the test session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(cache: Path) -> Path:
    """Folder of the tiny checkpoint; not to be written to."""
    return tiny_checkpoint(cache)


@pytest.fixture
def load_tiny(tiny: Path) -> Callable[..., BiEncoder]:
    """Return a function that loads the tiny model afresh."""

    def load(max_length: int = 128, **options: Any) -> BiEncoder:
        pooling = options.pop("pooling", "mean")
        prompts = options.pop("prompts", PROMPTS)
        return BiEncoder.load(tiny, pooling, prompts, max_length, **options)

    return load


@pytest.fixture
def encoder(load_tiny: Callable[..., BiEncoder]) -> BiEncoder:
    """The tiny model."""
    return load_tiny()


def configured_tasks() -> list[str]:
    """The tasks that the configuration evaluates, trains or anchors on."""
    conf = configuration_folder()
    tasks: set[str] = set()
    for group in ("evaluation", "task_mix", "anchor"):
        for path in sorted((conf / group).glob("*.yaml")):
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            for part in (config, *config.get("suites", {}).values()):
                tasks.update(part.get("tasks") or ())
    return sorted(tasks)


def corpus_pairs() -> list[Pair]:
    """Some hundred pairs of three languages, in all tasks of the configuration and all splits."""
    generator = random.Random(0)  # noqa: S311 -- a fixture, not a secret

    def phrase(language: str, length: int) -> str:
        return " ".join(generator.choices(WORDS[language], k=length))

    pairs: dict[tuple[str, str], Pair] = {}
    cross = [(language, other) for language in LANGUAGES for other in LANGUAGES if language != other]
    same = [(language, language) for language in LANGUAGES]
    per_split: dict[Split, int] = {"train": 7, "validation": 3, "test": 4}
    for task in configured_tasks():
        for language, document_language in cross[:3] if task == "bitext" else same:
            _fill(pairs, task, language, document_language, per_split, phrase)
    return list(pairs.values())


def _fill(
    pairs: dict[tuple[str, str], Pair],
    task: str,
    language: str,
    document_language: str,
    per_split: dict[Split, int],
    phrase: Callable[[str, int], str],
) -> None:
    for split, count in per_split.items():
        for number in range(count):
            query = f"{phrase(language, 2)} {task} {split} {number}"
            word = query.split()[0] if language == document_language else phrase(document_language, 1)
            positives = tuple(f"{word} {phrase(document_language, 4)} {turn}" for turn in range(1 + number % 2))
            pairs[language, query] = Pair(
                query, positives, task, language, document_language, "made up", f"{task} {split} {number}", split
            )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny corpus, as a data source returns it."""
    folder = tmp_path_factory.mktemp("source") / "tinycorpus0000001"
    folder.mkdir()
    write_pairs(folder / PAIRS, corpus_pairs())
    (folder / REPORT).write_text('{"rows": 0}', encoding="utf-8")
    return folder


SMALL_RUN = (
    "model=tiny",
    "data_scale=n125",
    "languages=all",
    "logger=none",
    "batching.batch_size=4",
    "batching.steps=24",
    "optimizer.optimizer.lr=0.003",
    "trainer.checkpoint_every=4",
    "trainer.log_every=8",
    "export.interpolation=[0.5,1.0]",
)
"""Overrides of retrofit train that make a run of seconds."""


@pytest.fixture(scope="session")
def small_run(corpus: Path) -> list[str]:
    """Overrides of retrofit train for a run of seconds on the tiny corpus."""
    return [
        *SMALL_RUN,
        "data_source.name=made_up",
        *(
            override
            for key in ("data_source.pairs", "evaluation.sources.embedded")
            for override in (f"{key}._target_=pathlib.Path", f"~{key}.cache", f"+{key}._args_=['{corpus}']")
        ),
    ]


@pytest.fixture(scope="session")
def train_config() -> Callable[..., dict[str, Any]]:
    """Return a function that composes conf/train.yaml with overrides and resolves it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from retrofit.commands.application import as_dictionary, register_resolvers

    register_resolvers()

    def composed(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
            config = compose("train", list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)  # a sweep names its points by what was chosen
            with open_dict(config):
                del config["hydra"]
            return as_dictionary(config)

    return composed
