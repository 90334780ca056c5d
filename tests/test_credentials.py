"""Which addresses carry a secret."""

from __future__ import annotations

import pytest

from retrofit.credentials import has_credentials


@pytest.mark.parametrize(
    "text",
    [
        "https://alice:hunter2@host/p.jsonl",
        "https://alice@host/p.jsonl",
        "https://alice:hun/ter2@host/p.jsonl",
        "s3://key:secret@bucket/p.jsonl",
        "https://host/p.jsonl?X-Amz-Signature=abcdef",
        "https://host/p.jsonl?a=1&api_key=abcdef",
        "data_source.path='https://host/p.jsonl?token=abcdef'",
    ],
)
def test_addresses_with_a_secret(text: str) -> None:
    assert has_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "alice@host",
        "query: ",
        "http://localhost:8000/v1",
        "s3://bucket/2026-11/a@b.jsonl",
        "hf://datasets/owner/name@revision/p.parquet",
        "https://host/p.jsonl?split=train&page=1",
        "zip://*.jsonl::https://host/all.zip",
    ],
)
def test_addresses_without(text: str) -> None:
    assert not has_credentials(text)
