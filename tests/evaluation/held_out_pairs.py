"""Pairs of all splits as hypothesis draws them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from retrofit.data.embedded.corpus import share_positives
from retrofit.data.records import SPLITS, Pair, to_table
from retrofit.data.splits import remove_leaks
from retrofit.data.storage import PairSource

LANGUAGES = ("de", "en", "ja")
GROUPS = tuple(f"{split} {number}" for split in SPLITS for number in range(4))


def source_of(pairs: list[Pair]) -> PairSource:
    """The pairs as a source in memory."""
    return PairSource(Path("made up"), to_table(pairs), None, {})


@st.composite
def held_out_pairs(draw: st.DrawFn, languages: tuple[str, ...] = LANGUAGES, *, bitext: bool = False) -> list[Pair]:
    """Pairs whose groups are divided between the splits, with some texts in common, and at least one for test."""
    texts = st.integers(0, 30).map(lambda number: f"text {number}")
    one = st.tuples(
        texts,
        st.lists(texts, min_size=1, max_size=3, unique=True),
        st.sampled_from(("help", "desc")),
        st.sampled_from(languages),
        st.sampled_from(languages) if bitext else st.none(),
        st.sampled_from(GROUPS),
    )
    drawn = draw(st.lists(one, min_size=8, max_size=60))
    pairs = [
        Pair(
            f"{language} {query} ?", tuple(f"{other or language} {text}" for text in positives), task, language,
            other or language, "made up", group, group.split()[0],  # type: ignore[arg-type]
        )
        for query, positives, task, language, other, group in drawn
    ]  # fmt: skip
    other = languages[-1 if bitext else 0]
    pairs.append(Pair("sure", (f"{other} certain",), "help", languages[0], other, "made up", "test 0", "test"))
    return remove_leaks(share_positives(pairs)[0])[0]


def texts_of(pairs: list[Pair], split: str) -> set[str]:
    """Every text of a split."""
    return {text for pair in pairs if pair.split == split for text in (pair.query, *pair.positives)}
