"""``retrofit search MODEL CORPUS``: answer queries, typed or piped in, over a file of texts."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from retrofit.commands.application import command, exits_on_user_error
from retrofit.errors import UserError

if TYPE_CHECKING:
    from retrofit.evaluation.corpus_search import Hit

USAGE = "retrofit search MODEL CORPUS [key=value ...]"

OPTIONS_WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun",
}  # fmt: skip
"""Hydra's options whose value is an argument of its own: that one is neither MODEL nor CORPUS."""


def with_overrides(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with MODEL and CORPUS turned into the overrides ``model_folder=`` and ``corpus=``.

    Raises:
        UserError: there are more than two such arguments.
    """
    names = ["model_folder", "corpus"]
    rewritten: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in OPTIONS_WITH_VALUE or not _is_positional(argument):
            rewritten.append(argument)
        elif names:
            rewritten.append(f"{names.pop(0)}={quoted(argument)}")
        else:
            raise UserError(f"unexpected argument {argument!r}; usage: {USAGE}")
    return rewritten


def _is_positional(argument: str) -> bool:
    if argument.startswith("-") or re.fullmatch(r"~[A-Za-z_][\w.@]*", argument):  # an option, or a deletion of a key
        return False
    key, equals, _ = argument.partition("=")
    # A path may hold "=": it is one if no configuration key could be spelled like its start, or if it lies on the disk.
    could_be_key = re.fullmatch(r"(\+\+?|~)?(hydra/)?[A-Za-z_][\w.@]*", key) is not None
    return not equals or not could_be_key or Path(argument).exists()


def quoted(value: str) -> str:
    r"""Return a value as Hydra's override grammar and OmegaConf's interpolation read it back unchanged.

    Between quotes, a backslash stands for itself unless a quote or another such backslash follows; ``${`` would start
    an interpolation.
    """
    value = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    value = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + (r"\'" if match[2] else ""), value)
    return f"'{value}'"


@command("search")
def _search(config: DictConfig) -> None:
    """Encode the corpus, or find it encoded, and answer queries until there are no more."""
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)  # noqa: S101 -- a search configuration is a mapping; this tells the type checker
    for key in ("model_folder", "corpus"):
        if resolved[key] is None:
            raise UserError(f"{key} is not given; usage: {USAGE}")
    for key in ("top_k", "batch_size"):
        if not isinstance(resolved[key], int) or isinstance(resolved[key], bool) or resolved[key] < 1:
            raise UserError(f"{key}={resolved[key]}: expected a whole number of at least 1")

    from retrofit.artefacts import ArtefactStore
    from retrofit.evaluation.corpus_search import CorpusSearch, read_corpus

    folder, corpus = (Path(str(resolved[key])).expanduser() for key in ("model_folder", "corpus"))
    passages = read_corpus(corpus, resolved["text_field"], resolved["id_field"])
    store = ArtefactStore(Path(resolved["paths"]["cache"]))
    search = CorpusSearch.open(folder, passages, store, resolved["batch_size"])
    show = _show_rich if sys.stdout.isatty() else _show_lines
    # The end by Ctrl-C, or by a reader that has seen enough (head), is an end like any other.
    with contextlib.suppress(KeyboardInterrupt), _until_nobody_reads():
        for query in _queries(len(passages)):
            show(query, search.search(query, resolved["top_k"]))


def _queries(n_passages: int) -> Iterator[str]:
    """Yield queries without surrounding blanks: typed ones up to an empty line, piped ones up to the end."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if not sys.stdin.isatty():
        yield from (query for query in map(str.strip, sys.stdin) if query)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 -- gives input() a history and cursor keys
    print(f"{n_passages} passages; an empty line ends", file=sys.stderr)
    # Where standard output goes to a file, the prompt must not: it would stand among the answers.
    prompt = "query: " if sys.stdout.isatty() else ""
    while True:
        if not prompt:
            print("query: ", end="", file=sys.stderr, flush=True)
        try:
            query = input(prompt).strip()
        except EOFError:
            return
        if not query:
            return
        yield query


def _show_rich(_query: str, hits: Sequence[Hit]) -> None:
    from rich.console import Console
    from rich.control import strip_control_codes
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column(style="green")
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for hit in hits:
        # As Text: brackets in a passage are no markup.
        texts = (hit.passage.passage_id, hit.passage.text)
        table.add_row(str(hit.rank), f"{hit.score:.4f}", *(Text(strip_control_codes(text)) for text in texts))
    Console(highlight=False).print(table)


def _show_lines(query: str, hits: Sequence[Hit]) -> None:
    for hit in hits:
        fields = (query, str(hit.rank), f"{hit.score:.4f}", hit.passage.passage_id, hit.passage.text)
        print("\t".join(" ".join(field.split()) for field in fields), flush=True)


@contextlib.contextmanager
def _until_nobody_reads() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # What is left in the buffer would raise once more when Python flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Turn the positional arguments into overrides and start."""
    with exits_on_user_error("search"):
        sys.argv[1:] = with_overrides(sys.argv[1:])
    _search()


if __name__ == "__main__":
    main()
