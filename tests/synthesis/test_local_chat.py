"""A language model that runs here: a tiny Llama, taught in a second to finish its JSON."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from retrofit.commands.application import configuration_folder
from retrofit.engine import LOCAL, Engine
from retrofit.errors import UserError
from retrofit.instantiation import instantiate
from retrofit.models.checkpoints import files_fingerprint
from retrofit.synthesis.chat import ChatModel, Reply
from retrofit.synthesis.decoding import JSON_PREFIX
from retrofit.synthesis.local_chat import LocalChat

PROMPTS = [
    "Ask about the lamp.",
    "住所について質問を書いてください。",
    "Ask about the bridge over the river, and be quick about it.",
    "Frage nach der Brücke.",
    "Ask about the lamp.",
    "Why?",
    "Frage nach dem Kennwort der Uhr im Flur.",
]
TAUGHT = ["What is it?", "Was ist das?", "Wo?"]


class PicklingEngine:
    """Hands the worker, the items and the results over as a cluster would, to a worker made anew for each item."""

    def map(self, make_worker: Callable[[], Callable[[Any], Any]], items: Iterable[Any]) -> Iterator[Any]:
        recipe = pickle.dumps(make_worker)
        for item in items:
            worker = pickle.loads(recipe)()  # noqa: S301 -- our own
            yield pickle.loads(pickle.dumps(worker(pickle.loads(pickle.dumps(item)))))  # noqa: S301

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A Llama of two layers that reads bytes, taught to write a question after a beginning of JSON."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny / name, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=260, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        texts = [f'{prompt}\n\n{JSON_PREFIX}{text}"}}' for prompt in set(PROMPTS) for text in TAUGHT]
        batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(60):
            model(**batch, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def local_chat(folder: Path | str | None, **changes: Any) -> LocalChat:
    keys: dict[str, Any] = {
        "model": folder, "revision": None, "gguf_file": None, "temperature": 0, "top_p": 1.0, "max_tokens": 24,
        "seed": 0, "batch_size": 3, "precision": "float32", "json_prefix": False, "name": None,
    }  # fmt: skip
    return LocalChat(**{**keys, **changes})


def replies(chat: ChatModel, prompts: Sequence[str] = PROMPTS, engine: Engine = LOCAL) -> list[Reply]:
    """The replies in the order of the prompts, each exactly once."""
    found = list(chat.replies([(prompt,) for prompt in prompts], engine))
    assert sorted(position for position, _ in found) == list(range(len(prompts)))
    return [reply for _, reply in sorted(found, key=lambda pair: pair[0])]


SAMPLED = {"temperature": 1.5, "top_p": 0.95}


@pytest.mark.parametrize("sampling", [{}, SAMPLED, {**SAMPLED, "json_prefix": True}], ids=["greedy", "drawn", "json"])
def test_replies_do_not_depend_on_order_or_engine(folder: Path, sampling: dict[str, Any]) -> None:
    chat = local_chat(folder, **sampling)
    there = replies(chat)
    assert replies(chat, PROMPTS[::-1])[::-1] == there
    assert replies(chat, engine=PicklingEngine()) == there
    assert there[0] == there[4]
    assert all(reply.failure is None and reply.prompt_tokens > 0 for reply in there)
    assert len({reply.content for reply in replies(local_chat(folder, **SAMPLED))}) == len(set(PROMPTS))
    assert list(chat.replies([], LOCAL)) == []


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "drawn"])
def test_nor_on_the_block_but_for_rounding(folder: Path, sampling: dict[str, Any]) -> None:
    there = [reply.content for reply in replies(local_chat(folder, **sampling))]
    for size in (1, 7):
        assert [reply.content for reply in replies(local_chat(folder, **sampling, batch_size=size))] == there


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_greedy_is_what_transformers_generates_for_a_single_prompt(folder: Path, precision: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    chat = local_chat(folder, precision=precision, batch_size=1)
    for prompt, reply in zip(PROMPTS, replies(chat), strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"][:, :-1]  # without the end that this tokenizer adds
        written = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        assert reply.content == tokenizer.decode(written, skip_special_tokens=True)
        assert reply.prompt_tokens == ids.shape[1]
        assert reply.completion_tokens == sum(token not in (1, 2) for token in written.tolist())


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_json_prefix_makes_json(folder: Path, temperature: float) -> None:
    chat = local_chat(folder, json_prefix=True, temperature=temperature, max_tokens=60)
    found = [json.loads(reply.content)["text"] for reply in replies(chat)]
    assert all(isinstance(text, str) for text in found)
    assert set(found) & set(TAUGHT)


def test_json_that_breaks_off_is_not_passed_off_as_whole(folder: Path) -> None:
    for reply in replies(local_chat(folder, json_prefix=True, max_tokens=2)):
        assert reply.content.startswith(JSON_PREFIX)
        assert not reply.content.endswith("}")
        assert reply.completion_tokens == 2


def test_the_seed_decides(folder: Path) -> None:
    first = replies(local_chat(folder, **SAMPLED))
    assert replies(local_chat(folder, **SAMPLED)) == first
    assert replies(local_chat(folder, **SAMPLED, seed=1)) != first
    assert replies(local_chat(folder, temperature=0.7, top_p=1e-6)) == replies(local_chat(folder))


def test_a_chat_template_is_used_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "chat"
    shutil.copytree(folder, copy)
    template = "<s>{{ messages[0].content }}{% if add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
    (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    with_template, without = local_chat(copy, json_prefix=True), local_chat(folder, json_prefix=True)
    # This template comes to the same as none: one <s>, and the blank line that a prefix gets by itself.
    assert replies(with_template) == replies(without)
    assert with_template.identity != without.identity  # but that is nothing to rely on
    assert files_fingerprint(copy) != files_fingerprint(folder)
    (copy / "chat_template.jinja").write_text("<s>Hi: {{ messages[0].content }}", encoding="utf-8")
    counts = [reply.prompt_tokens for reply in replies(local_chat(copy, json_prefix=True))]
    assert counts == [reply.prompt_tokens + len("Hi: ") - len("\n\n") for reply in replies(without)]


def test_turns_are_told_apart_by_a_chat_template_and_are_paragraphs_without(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "chat"
    shutil.copytree(folder, copy)
    template = "<s>{% for turn in messages %}{{ turn.role[0] }}:{{ turn.content }};{% endfor %}"
    (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    turns = ("one", '{"text": "x"}', "two")
    ((_, reply),) = local_chat(copy).replies([turns], LOCAL)
    assert reply.prompt_tokens == len('Su:one;a:{"text": "x"};u:two;')
    ((_, reply),) = local_chat(folder).replies([turns], LOCAL)
    assert reply.prompt_tokens == len('Sone\n\n{"text": "x"}\n\ntwo')
    assert list(local_chat(folder).replies([turns], LOCAL)) != list(local_chat(folder).replies([("one two",)], LOCAL))


def test_identity_says_what_replies_depend_on(folder: Path, tmp_path: Path) -> None:
    greedy = local_chat(folder).identity
    assert json.loads(json.dumps(greedy)) == greedy
    assert local_chat(folder, seed=1, top_p=0.5, batch_size=1).identity == greedy
    others = [{"temperature": 1}, {"max_tokens": 9}, {"json_prefix": True}, {"precision": "bfloat16"}]
    sampled = [{**SAMPLED, "seed": 1}, {**SAMPLED, "seed": 2}, {**SAMPLED, "top_p": 0.5}]
    identities = [greedy, *(local_chat(folder, **keys).identity for keys in (*others, *sampled))]
    assert len({json.dumps(identity) for identity in identities}) == len(identities)
    assert local_chat(folder).name == str(folder)
    assert local_chat(folder, name="tiny").name == "tiny"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": None}, "chat.model=null"),
        ({"model": "no/such-model"}, "chat.model=no/such-model"),
        ({"temperature": -1}, "chat.temperature=-1"),
        ({"top_p": 0}, "chat.top_p=0"),
        ({"max_tokens": 0}, "chat.max_tokens=0"),
        ({"batch_size": 0}, "chat.batch_size=0"),
    ],
    ids=lambda value: str(value),
)
def test_wrong_keys_are_named_in_one_line(folder: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as caught:
        local_chat(**{"folder": folder, **({"folder": changes["model"]} if "model" in changes else changes)})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_without_a_model_that_can_be_read_are_named(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "pytorch_model.bin").write_bytes(b"pickled")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")

    def message(chat: Callable[[], object]) -> str:
        with pytest.raises(UserError) as caught:
            chat()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no *.safetensors" in message(lambda: local_chat(empty))
    assert "no causal language model" in message(lambda: replies(local_chat(broken)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[gguf]'" in message(lambda: local_chat(empty, gguf_file="model.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "chat.gguf_file=model.gguf" in message(lambda: local_chat(empty, gguf_file="model.gguf"))


def test_a_prompt_that_is_too_long_is_found_at_once(folder: Path) -> None:
    with pytest.raises(UserError, match=r"generator\.max_passage_characters") as caught:
        next(local_chat(folder).replies([("short",)] * 50 + [("long " * 60,)], LOCAL))
    assert "256" in str(caught.value)


@pytest.mark.parametrize("option", ["local", "gemma"])
def test_the_configuration_has_every_key(option: str, folder: Path) -> None:
    config = yaml.safe_load((configuration_folder() / "chat" / f"{option}.yaml").read_text(encoding="utf-8"))
    chat = instantiate({**config, "model": str(folder), "gguf_file": None, "seed": 0})
    assert isinstance(chat, LocalChat)
