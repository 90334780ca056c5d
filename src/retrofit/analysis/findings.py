"""The five findings of the paper: what is asked, what the paper claims, and how a verdict comes about.

A verdict is computed from the results and never written by hand. It rests on checks, each of which holds or not by a
significance test over queries and in all seeds: a finding is ``reproduced`` where all hold, ``not reproduced`` where
the decisive one does not (or none does), ``partly`` reproduced in between, and ``not measured`` where the decisive one
could not be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "partly", "not reproduced", "not measured"


@dataclass(frozen=True)
class Finding:
    """A finding of the paper.

    Attributes:
        id: ``F1`` to ``F5``.
        name: in a word or two.
        question: what is asked.
        claim: what the paper found, in our words.
        sweeps: whose runs answer it here.
        folder: of its results, below ``experiments``.
    """

    id: str
    name: str
    question: str
    claim: str
    sweeps: tuple[str, ...]
    folder: str


FINDINGS = {
    finding.id: finding
    for finding in (
        Finding(
            "F1",
            "data source",
            "Which source of training pairs lifts retrieval?",
            "Synthetic multilingual pairs lift retrieval clearly; parallel texts hardly.",
            ("data_source",),
            "F1_data_source",
        ),
        Finding(
            "F2",
            "data scale",
            "How many pairs of each language are enough?",
            "Gains come first and then a plateau: little beyond about 4,000 examples of each language.",
            ("data_scale", "data_scale_folder"),
            "F2_data_scale",
        ),
        Finding(
            "F3",
            "negatives",
            "Do hard negatives help, and which?",
            "Hard negatives improve consistently over in-batch ones alone, and a stronger miner is better.",
            ("negatives", "negatives_per_query", "batch_size"),
            "F3_negatives",
        ),
        Finding(
            "F4",
            "diversity",
            "At equal budget, what adds more: more tasks or more languages?",
            "The diversity of tasks adds more than the diversity of languages.",
            ("diversity", "diversity_longer"),
            "F4_diversity",
        ),
        Finding(
            "F5",
            "final model",
            "What has the retrofitted model gained over its base, and what has it lost?",
            "A small retrofitted model reaches 60.56 on MMTEB multilingual retrieval, as 7B models do (59.44, 60.08), "
            "and gains 1.15 on MMTEB overall; LoRA keeps it cheap.",
            ("final",),
            "F5_final",
        ),
    )
}

FINDING_OF_SWEEP = {sweep: finding.id for finding in FINDINGS.values() for sweep in finding.sweeps}


@dataclass(frozen=True)
class Check:
    """One thing that a measurement must show.

    Attributes:
        says: what, with the figures that decide it.
        holds: whether it does; None where it could not be measured.
        decisive: whether nothing is reproduced without it.
    """

    says: str
    holds: bool | None
    decisive: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the results say about a finding.

    Attributes:
        verdict: ``reproduced``, ``partly``, ``not reproduced`` or ``not measured``.
        sentences: why, with the figures.
        checks: what the verdict rests on.
    """

    verdict: str
    sentences: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def sentence(self) -> str:
        """All sentences in one."""
        return " ".join(self.sentences)

    @classmethod
    def from_checks(cls, checks: Sequence[Check], sentences: Sequence[str]) -> Verdict:
        """Return the verdict that checks come to.

        Args:
            checks: at least one of them decisive.
            sentences: what was measured.
        """
        decisive = [check.holds for check in checks if check.decisive]
        if all(held is None for held in decisive):
            verdict = NOT_MEASURED
        elif False in decisive or not any(check.holds for check in checks):
            verdict = NOT_REPRODUCED
        else:
            verdict = REPRODUCED if all(check.holds for check in checks) else PARTLY
        return cls(verdict, tuple(sentences), tuple(checks))
