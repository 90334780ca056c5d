"""Some languages of a BEIR folder, and of its documents only those of a split if they say which.

    python experiments/data_source/part_of.py OMOSQA omosqa_part en,ar,uk
    python experiments/data_source/part_of.py XQUAD xquad_part en,de,ar,hi

Documents whose ``split`` is another than ``test`` are left out: on the training part of omosqa synthetic queries were
written, so it is not searched here.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write(path: Path, kept: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)


def main(source: Path, target: Path, languages: set[str]) -> None:
    (target / "qrels").mkdir(parents=True)
    documents = [
        row
        for row in rows(source / "corpus.jsonl.gz")
        if row["lang"] in languages and row.get("split", "test") == "test"
    ]
    queries = [row for row in rows(source / "queries.jsonl.gz") if row["lang"] in languages]
    write(target / "corpus.jsonl.gz", documents)
    write(target / "queries.jsonl.gz", queries)
    asked = {row["_id"] for row in queries}
    with (source / "qrels" / "test.tsv").open(encoding="utf-8") as judged:
        header, *judgements = csv.reader(judged, delimiter="\t")
    with (target / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(
            [header, *(row for row in judgements if row[0] in asked)]
        )
    print(f"{len(queries)} queries, {len(documents)} documents")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), set(sys.argv[3].split(",")))
