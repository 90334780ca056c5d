"""The configuration as a whole: every option composes, every target exists, no key is dead."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from tests.commands.forked import retrofit

from retrofit.commands.application import configuration_folder
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.losses.guided import Guided
from retrofit.losses.info_nce import InfoNCE
from retrofit.losses.matryoshka import Matryoshka
from retrofit.losses.objective import Mixture
from retrofit.losses.passage_queue import WithQueue
from retrofit.models.adapters import apply_adapter
from retrofit.models.search_model import SearchModel
from retrofit.training.configuration import check

Compose = Callable[..., dict[str, Any]]
CONF = configuration_folder()
SOURCE = Path(__file__).parents[2] / "src" / "retrofit"
GROUPS = sorted({path.parent.name for path in CONF.glob("*/*.yaml")})  # templates of queries are no group
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
# What only goes with another choice.
WITH = {("adapter", "full"): ["anchor=none"]}
# Models that can be retrofitted, and those that only retrofit evaluate has a use for.
RETROFITTED = ("embedded", "me5_base", "me5_large", "me5_small", "minilm", "tiny", "xlmr_base")
ONLY_EVALUATED = ("bm25", "openai_embeddings", "use_multilingual")
# What no training can do with: it is for retrofit evaluate.
NOT_TRAINED_WITH = {
    ("evaluation", "folder"): "evaluation.suites",
    ("evaluation", "mteb"): "evaluation.suites",
    **{("model", option): "negatives.mined.model" for option in ONLY_EVALUATED},
}
# What is chosen for a part of another group, and not at the top.
PARTS = {
    "reranker": "negatives.mined.reranker",
    "veto": "negatives.mined.veto",
    "passages": "data_source.passages.leads",
    "generator": "data_source.generator",
    "chat": "data_source.generator.chat",
    "examples": "data_source.generator.examples",
    "judge": "data_source.judge",
}


def chosen(group: str, option: str) -> list[str]:
    """The overrides that choose an option of a group."""
    if group == "model" and option not in RETROFITTED:  # to mine with, or to measure against
        return ["negatives=dense_filtered", f"model@negatives.mined.model={option}"]
    if group in PARTS:
        whole = ["negatives=dense_filtered"] if PARTS[group].startswith("negatives") else ["data_source=synthetic"]
        whole += ["generator@data_source.generator=openai"] if group in ("chat", "examples") else []
        return [*whole, f"{group}@{PARTS[group]}={option}"]
    return [f"{group}={option}", *WITH.get((group, option), [])]


def part(config: dict[str, Any], group: str, option: str) -> dict[str, Any]:
    """What a chosen option of a group says."""
    if group == "model" and option not in RETROFITTED:
        return config["negatives"]["mined"]["model"]
    found: Any = config
    for key in PARTS.get(group, group).split("."):
        found = found[key]
    return found


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        yield from itertools.chain.from_iterable(map(targets, node))


def test_every_group_is_in_the_primary_configuration() -> None:
    primary = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    named = {key.lstrip("/") for entry in primary if isinstance(entry, dict) for key in entry}
    assert named | PARTS.keys() == set(GROUPS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_option_composes_keeps_the_rules_and_names_existing_targets(
    train_config: Compose, group: str, option: str
) -> None:
    config = train_config(*chosen(group, option))
    if (group, option) in NOT_TRAINED_WITH:
        with pytest.raises(UserError, match=f"^{NOT_TRAINED_WITH[group, option]}="):
            check(config)
    else:
        check(config)
    found = list(targets(config))
    assert found
    for target in found:
        assert callable(get_object(target)), target


@pytest.mark.parametrize("option", [*ONLY_EVALUATED, "embedded_words", "sentence_transformer", "wordllama"])
def test_what_cannot_be_retrofitted_is_refused_in_one_line(train_config: Compose, option: str) -> None:
    with pytest.raises(UserError, match=r"^model(=\w+|\.\w+=None): expected [^\n]*$"):
        check(train_config(f"model={option}"))


@pytest.mark.parametrize("option", ONLY_EVALUATED)
def test_what_is_only_evaluated_instantiates_and_searches_nowhere_else(train_config: Compose, option: str) -> None:
    config = train_config(*chosen("model", option))["negatives"]["mined"]["model"]
    assert instantiate(config["evaluated"]).kind in ("bi-encoder", "bm25", "endpoint")
    with pytest.raises(UserError, match=rf"^model={option}: expected a model with a checkpoint"):
        SearchModel.of(config)


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "loss"])
def test_every_loss_instantiates(train_config: Compose, option: str) -> None:
    loss = train_config(f"loss={option}")["loss"]
    settings = {name: value for name, value in loss.items() if name != "teacher"}
    objective = instantiate({**settings, "dimension": 384, "teacher_dimension": 384})
    (contrastive,) = (part for part in objective.modules() if isinstance(part, InfoNCE))
    assert contrastive.temperature.start == 0.02
    assert contrastive.symmetric_weight == (0.5 if option.endswith("symmetric") else 0)
    plain = option.startswith("info_nce")
    turned_on = isinstance(objective, Matryoshka | Guided | Mixture | WithQueue)
    assert plain is not (turned_on or contrastive.hardness > 0 or len(list(objective.parameters())) > 0)


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "adapter"])
def test_every_adapter_instantiates(train_config: Compose, option: str) -> None:
    adapter = instantiate(train_config(f"adapter={option}")["adapter"]["config"])
    if option == "full":
        assert adapter is None
    else:
        assert adapter.use_dora is (option == "dora")
        assert (adapter.r, adapter.lora_alpha) == (16, 32)


@pytest.mark.parametrize("overrides", [(), ("adapter.layers=[1]",)], ids=["all", "one layer"])
def test_lora_reaches_every_linear_layer_it_is_asked_for(
    train_config: Compose, overrides: tuple[str, ...], load_tiny: Any
) -> None:
    import torch

    encoder = load_tiny()
    linear = {name for name, module in encoder.backbone.named_modules() if isinstance(module, torch.nn.Linear)}
    if overrides:
        linear = {name for name in linear if ".1." in name}
    adapter = train_config("adapter=lora", *overrides)["adapter"]
    apply_adapter(encoder, instantiate(adapter["config"]), adapter["layers"])
    names = [name.split("base_model.model.")[-1] for name, _ in encoder.backbone.named_modules()]
    assert {name.removesuffix(".lora_A") for name in names if name.endswith(".lora_A")} == linear


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "optimizer"])
def test_every_optimizer_instantiates(train_config: Compose, option: str) -> None:
    import torch

    factory = instantiate(train_config(f"optimizer={option}", "optimizer.optimizer.lr=0.5")["optimizer"]["optimizer"])
    optimizer = factory([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_options_of_a_group_have_the_same_keys(train_config: Compose, group: str, option: str) -> None:
    if group in (
        "experiment",
        "launcher",
        "engine",
        "passages",
        "generator",
        "chat",
    ):  # of different kinds, and needing different things
        return
    if group == "model" and option in ONLY_EVALUATED:
        assert set(part(train_config(*chosen(group, option)), group, option)) == {"name", "evaluated"}
        return
    first = "embedded" if group == "model" else next(other for name, other in OPTIONS if name == group)
    ours, theirs = (
        set(part(train_config(*chosen(group, name)), group, name)) - {"_target_"} for name in (option, first)
    )
    if group == "data_source":  # what a source is made of is its own affair
        assert {"name", "pairs"} <= ours & theirs
    else:
        assert ours == theirs


def test_sample_sizes_say_what_they_take(train_config: Compose) -> None:
    for option in (option for group, option in OPTIONS if group == "data_scale"):
        cap = train_config(f"data_scale={option}")["data_scale"]["pairs_per_language"]
        number = re.fullmatch(r"n(\d+)(k?)", option)
        assert cap == (int(number[1]) * (1000 if number[2] else 1) if number else None), option


def test_languages_and_tasks_are_named_once(train_config: Compose) -> None:
    for group, key in (("languages", "languages"), ("task_mix", "tasks")):
        for option in (option for name, option in OPTIONS if name == group):
            names = train_config(f"{group}={option}")[group][key]
            assert names is None or len(names) == len(set(names)) > 0, option


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path


def test_no_key_is_dead(train_config: Compose) -> None:
    """A key is read by name, or handed over whole to a target or a function that has it as an argument."""
    config = train_config("experiment=smoke", "adapter=dora")
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py")))
    words = set(re.findall(r"\w+", source))
    dead = []
    for path in leaves(config):
        holder: Any = config
        within_target = False
        for part in path[:-1]:
            holder = holder[part]
            within_target |= isinstance(holder, dict) and "_target_" in holder
        if not within_target and path[-1] not in words and path[-2:-1] != ("suites",):
            dead.append(".".join(path))
    assert dead == []


COMMANDS = ["train", "evaluate", "encode", "inspect", "mine", "report", "search", "status", "synthesize"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_job_configuration_print_and_leave_nothing(tmp_path: Path, command: str) -> None:
    shown = retrofit(tmp_path, command, "--help")
    assert shown.returncode == 0, shown.stderr
    printed = retrofit(tmp_path, command, "--cfg", "job")
    assert printed.returncode == 0, printed.stderr
    config = yaml.safe_load(printed.stdout)
    assert "paths" in config
    if command == "train":
        for group in GROUPS:
            assert group in shown.stdout, group
        assert config["model"]["name"] == "embedded"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("batching.batch_sise=8", "batch_sise"),
        ("modell=tiny", "modell"),
        ("model=tinny", "tinny"),
        ("experiment=smoek", "smoek"),
    ],
)
def test_an_unknown_override_is_named(tmp_path: Path, override: str, named: str) -> None:
    done = retrofit(tmp_path, "train", override)
    assert done.returncode != 0
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
