"""Units of a cut: images that stay on one side, because they are of one group or are exact duplicates.

Where every unit is one image, all functions here take the images of each class in the order of the hashes of their ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.data.manifest import Split

_NO_GAIN = -1e-12  # of a change of the cut; a smaller one is a rounding error


@dataclass(frozen=True, eq=False)
class Units:
    """The U units of a split with N images of K classes. Their order depends on a seed and on the ids only.

    Attributes:
        of_row: int64 (N,), the unit of each image.
        counts: int64 (U, K), the images of each unit by class.
        labels: int64 (K,), the labels of the classes, ascending; −1 is the class of the images without a label.
    """

    of_row: NDArray[np.int64]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of images of each class, int64 (K,)."""
        return np.asarray(self.counts.sum(axis=0))

    def per_class(self) -> NDArray[np.int64]:
        """Number of units with images of each class, int64 (K,)."""
        return np.asarray((self.counts > 0).sum(axis=0))

    @property
    def single(self) -> bool:
        """Whether each unit is one image; loops over the units are then not needed, which take 10 s for 10⁶ images."""
        return len(self.counts) == len(self.of_row)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The most frequent class of each unit, int64 (U,), and the number of its images in the units before it."""
        main = self.counts.argmax(axis=1)
        before = self.counts.cumsum(axis=0) - self.counts
        return main, before[np.arange(len(main)), main]


def units_of(split: Split, seed: int) -> Units:
    """The units of a split: connected components of "same group" and "same pixels", as far as these are known."""
    rows = sorted(
        range(len(split)),
        key=lambda row: hashlib.sha256(f"{seed}:{split.ids[row]}".encode(errors="surrogateescape")).digest(),
    )
    component = _components(split)
    _, first, component = np.unique(component[rows], return_index=True, return_inverse=True)
    of_row = np.empty(len(split), np.int64)
    of_row[rows] = np.argsort(np.argsort(first))[component]  # a unit has the place of its first image
    labels, label = np.unique(split.labels, return_inverse=True)
    counts = np.zeros((len(first), len(labels)), np.int64)
    np.add.at(counts, (of_row, label), 1)
    return Units(of_row, counts, labels)


def _components(split: Split) -> NDArray[np.int64]:
    """A number for each image, int64 (N,), that is equal for all images of a unit."""
    rows = np.arange(len(split))
    edges = []  # from each image to its group, and to its digest
    if split.groups is not None:
        edges.append((rows, np.unique(split.groups, return_inverse=True)[1]))
    if split.inspection is not None:
        read = np.flatnonzero(split.inspection["digest"] != "")
        edges.append((read, np.unique(split.inspection["digest"][read], return_inverse=True)[1]))
    edges = [(source, target) for source, target in edges if len(np.unique(target)) < len(target)]
    if not edges:
        return rows
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    starts = len(split) + np.cumsum([0, *(target.max() + 1 for _, target in edges)])
    sources = np.concatenate([source for source, _ in edges])
    targets = np.concatenate([target + start for (_, target), start in zip(edges, starts, strict=False)])
    graph = coo_array((np.ones(len(sources), bool), (sources, targets)), shape=(starts[-1], starts[-1]))
    return np.asarray(connected_components(graph, directed=False)[1][: len(split)], np.int64)


def hold_out(units: Units, share: float) -> NDArray[np.bool_]:
    """Choose units, bool (U,), with about this share of the images of each class, and at least one image on each side.

    In their order, units are held out that bring the counts closer to their targets: the sum of the squared deviations,
    as shares of the class, decides. Then single units change sides as long as that improves the cut.
    """
    sizes = units.sizes
    target = np.array([min(max(1, round(share * n)), n - 1) for n in sizes.tolist()], np.int64)
    if units.single:
        main, before = units.places()
        return np.asarray(before < target[main])
    held, chosen = np.zeros_like(sizes), np.zeros(len(units.counts), bool)
    for unit, own in enumerate(units.counts):
        if (own * (own + 2 * (held - target)) / sizes**2).sum() < 0:
            chosen[unit] = True
            held += own
    while (held != target).any():
        change = np.where(chosen, -1, 1)[:, None] * units.counts
        gains = (change * (change + 2 * (held - target)) / sizes**2).sum(axis=1)
        # A class that is on one side only costs more than all deviations together.
        gains += (len(sizes) + 1) * (_one_sided(held + change, sizes) - _one_sided(held, sizes))
        best = int(gains.argmin())
        if gains[best] > _NO_GAIN:
            break
        held += change[best]
        chosen[best] = not chosen[best]
    return chosen


def _one_sided(held: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of classes of which no image or all images are held out, for counts (..., K)."""
    return np.asarray(((held == 0) | (held == sizes)).sum(axis=-1))


def folds(units: Units, count: int) -> NDArray[np.int64]:
    """The fold of each unit, int64 (U,): large units first, each in the fold that has least of its classes.

    The sum of the squared counts of the folds, as shares of the class, grows least; of equal folds the first is taken.
    """
    if units.single:
        return units.places()[1] % count
    filled = np.zeros((count, len(units.labels)))
    found = np.zeros(len(units.counts), np.int64)
    weights = units.counts / units.sizes**2
    for unit in np.argsort(-units.counts.sum(axis=1), kind="stable"):
        found[unit] = (filled @ weights[unit]).argmin()
        filled[found[unit]] += units.counts[unit]
    return found


def first_share(units: Units, share: float) -> NDArray[np.bool_]:
    """The first units, bool (U,), with about this share of each class; smaller shares are within larger ones.

    A unit counts for its most frequent class. A unit with the first image of any class is always among them.
    """
    target = np.array([max(1, round(share * n)) for n in units.sizes.tolist()])
    main, before = units.places()
    first_of_class = np.zeros(len(main), bool)
    first_of_class[(units.counts > 0).argmax(axis=0)] = True
    return np.asarray((before < target[main]) | first_of_class)
