"""What is drawn where items belong together: groups of them, each the same in all of a suite's tasks and languages.

A question about one integration stands in 31 languages, and several questions ask for one paragraph: such items rise
and fall together. So a bootstrap draws groups, and a randomisation exchanges models in a whole group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retrofit.analysis.significance import FLIPS, RESAMPLES
from retrofit.artefacts import fingerprint

_GROUPS_AT_ONCE = 128  # 10 MB of signs as float64


class GroupDraws:
    """The draws of a suite's groups; those of a group depend on its name and on the suite's alone.

    Args:
        suite: its name.
    """

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self._drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def resampled_means(self, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
        r"""Return the means of items whose groups are resampled, float64 ``[RESAMPLES, columns]``.

        With :math:`\bar v` the mean of n items and Poisson counts :math:`c_g` of mean 1,

        .. math:: \bar v + \frac{1}{n} \sum_g (c_g - 1) \sum_{i \in g} (v_i - \bar v)

        which is the bootstrap of clusters (Cameron and Miller 2015) in its linear form: the counts need not be known of
        other groups, and no resample is empty. All columns are resampled alike.

        Args:
            values: float ``[items, columns]``, of one cell.
            groups: of each item, object ``[items]``.
        """
        means = values.mean(axis=0)
        names, sums = _sums(values - means, groups)
        drawn = np.zeros((RESAMPLES, values.shape[1]))
        for part in _parts(len(names)):
            counts = np.stack([self._draw(name)[0] for name in names[part]], axis=1)
            drawn += (counts - 1.0) @ sums[part]
        resampled: np.ndarray = means + drawn / len(values)
        return resampled

    def exchanged_means(self, differences: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return mean differences where each group has a random sign, float64 ``[FLIPS, columns]``.

        Args:
            differences: float ``[items, columns]``: paired differences between two models; columns have the same signs.
            groups: of each item, object ``[items]``.
        """
        names, sums = _sums(differences, groups)
        apart = (sums != 0).any(axis=1)  # of the others no sign changes a sum
        names, sums = names[apart], sums[apart]
        drawn = np.zeros((FLIPS, differences.shape[1]))
        for part in _parts(len(names)):
            signs = np.stack([self._draw(name)[1] for name in names[part]], axis=1)
            drawn += signs.astype(np.float64) @ sums[part]
        return drawn / len(differences)

    def _draw(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return how often each resample has a group, uint8 ``[RESAMPLES]``, and its signs, int8 ``[FLIPS]``."""
        if group not in self._drawn:
            generator = named_generator(self.suite, group)
            counts = generator.poisson(1, RESAMPLES).astype(np.uint8)
            bits = np.unpackbits(np.frombuffer(generator.bytes(-(-FLIPS // 8)), np.uint8))[:FLIPS]
            self._drawn[group] = counts, bits.astype(np.int8) * 2 - 1
        return self._drawn[group]


def named_generator(*names: str) -> np.random.Generator:
    """Return a generator of its own for what has these names."""
    return np.random.default_rng(int(fingerprint(list(names)), 16))


def _sums(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the names of groups and the sums of their items, float64 ``[groups, columns]``."""
    names, places = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, places, values)
    return names, sums


def _parts(groups: int) -> Iterator[slice]:
    for start in range(0, groups, _GROUPS_AT_ONCE):
        yield slice(start, start + _GROUPS_AT_ONCE)
