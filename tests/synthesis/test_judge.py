"""Scores of pairs by a model."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tests.synthesis.test_reply_store import Canned

from retrofit.engine import LOCAL
from retrofit.errors import UserError
from retrofit.synthesis.candidates import Candidate
from retrofit.synthesis.chat import Reply
from retrofit.synthesis.judge import Judge
from retrofit.synthesis.records import Request, SourcePassage, Written

PAIRS = [
    ("what is a river", "A river is a natural stream of water.", "en"),
    ("was ist ein Fluss", "Ein Fluss fließt. {query}", "de"),
    ("what is a lake", "A river is a natural stream of water.", "en"),
]


class Answering(Canned):
    """A judge's model that answers by the query in the prompt."""

    def __init__(self, *contents: str | Reply) -> None:
        super().__init__()
        self.contents = contents

    def replies(self, prompts, engine):  # type: ignore[no-untyped-def]
        for position, prompt in enumerate(prompts):
            self.asked.append(prompt)
            (number,) = [number for number, (query, _, _) in enumerate(PAIRS) if query in prompt[0]]
            content = self.contents[number]
            yield position, content if isinstance(content, Reply) else Reply(content)


def test_pairs_get_scores_that_are_kept(tmp_path: Path) -> None:
    chat = Answering('{"text": "5"}', '```json\n{"text": " 4 "}\n```', '{"text": "1"}')
    scores = Judge(chat, 3, tmp_path, 30).scores(PAIRS, LOCAL)
    assert scores.dtype == np.int8
    assert scores.tolist() == [5, 4, 1]
    for (query, passage, language), prompt in zip(PAIRS, chat.asked, strict=True):
        (prompt,) = prompt
        assert f"Query:\n{query}\n\nText:\n{passage[:30]}" in prompt
        assert prompt.endswith(passage[:30])
        assert f"in the language {language} " in prompt
        assert json.loads(prompt[prompt.index('{"') : prompt.index("}") + 1]) == {"text": "3"}
    unasked = Answering()
    assert Judge(unasked, 3, tmp_path, 30).scores(PAIRS, LOCAL).tolist() == [5, 4, 1]
    assert unasked.asked == []


def test_what_is_no_score_is_nought_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chat = Answering('{"text": "6"}', "five", Reply("", "timed_out"))
    assert Judge(chat, 3, tmp_path, 100).scores(PAIRS, LOCAL).tolist() == [0, 0, 0]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line == "canned: no score of 3 of 3 pairs"
    assert Judge(chat, 3, tmp_path, 100).scores([], LOCAL).tolist() == []


def test_an_odd_number_is_one_line_and_identity_names_the_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data_source\.judge\.max_passage_characters=-1: expected a whole number"):
        Judge(Canned(), 3, tmp_path, -1)
    with pytest.raises(UserError, match=r"^data_source\.judge\.least=6: expected a score from 1 to 5"):
        Judge(Canned(), 6, tmp_path, 9)
    identities = [Judge(chat, least, tmp_path, 9).identity for chat in (Canned(), Canned(seed=1)) for least in (3, 4)]
    assert all(one != other for one, other in itertools.combinations(identities, 2))


def test_what_is_judged_too_low_is_rejected_and_what_is_not_judged_stays(tmp_path: Path) -> None:
    chat = Answering('{"text": "5"}', '{"text": "2"}', Reply("", "timed_out"))
    candidates = [
        Candidate(Written(Request(SourcePassage(passage, "", "en", "g", "s"), "question", language), query, "t"))
        for query, passage, language in PAIRS
    ]
    with pytest.raises(UserError, match=r"^data_source\.judge: no score of 1 of 3 pairs, more than data_source.max_f"):
        Judge(chat, 3, tmp_path, 100).apply(candidates, LOCAL, 0.1)
    Judge(chat, 3, tmp_path, 100).apply(candidates, LOCAL, 0.4)
    assert [candidate.judged for candidate in candidates] == [5, 2, 0]
    assert [candidate.rejected for candidate in candidates] == ["", "judge", ""]
