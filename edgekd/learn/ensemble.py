"""Several teachers as one: the weighted mean of their logits.

z = sum of w_k z_k over teachers k, with weights that sum to 1. The mean is taken of logits and not of
probabilities because softmax(z / T) is then, at every temperature T, the normalized geometric mean of the
teachers' own softened predictions: what is stored once serves every temperature and every loss of logits.
A mean of probabilities would have to be stored anew for each T (Hinton et al. 2015, arXiv 1503.02531,
section 1, names both means). Logits of teachers with another scale count for more: weigh them less.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from edgekd.data import Dataset
from edgekd.errors import VerifyError
from edgekd.learn.teacher import Teacher, load_teacher
from edgekd.recipe import Recipe, members, weights


class MeanNet(nn.Module):
    """float32 [N, classes]: the weighted mean of what several networks give."""

    def __init__(self, nets: Sequence[nn.Module], shares: Sequence[float]) -> None:
        super().__init__()
        self.nets, self.shares = nn.ModuleList(nets), tuple(shares)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [share * net(x).float() for net, share in zip(self.nets, self.shares, strict=True)]
        ).sum(dim=0)


def load_teachers(directories: Path | Sequence[Path], recipe: Recipe, data: Dataset) -> Teacher:
    """The teacher of `recipe`, or all of its [[teachers]] as one.

    directories: of each teacher, in the recipe's order. Raises ArtifactError where one is absent or broken,
    VerifyError where one was trained on another data set or two are the same.
    """
    places = [directories] if isinstance(directories, Path) else list(directories)
    found = [
        load_teacher(place, each.teacher.code) for place, each in zip(places, members(recipe), strict=True)
    ]
    for teacher, place in zip(found, places, strict=True):
        if teacher.dataset_sha256 != data.sha256 or teacher.classes != data.classes:
            raise VerifyError(f"{place} was trained on another data set; train the teacher again")
    return found[0] if len(found) == 1 else mean_of(found, weights(recipe))


def mean_of(teachers: Sequence[Teacher], shares: Sequence[float]) -> Teacher:
    """Several teachers of one data set as one. Raises VerifyError where two are the same."""
    pairs = sorted(zip((teacher.sha256 for teacher in teachers), shares, strict=True))
    if len(dict(pairs)) != len(pairs):
        raise VerifyError(
            "two of [[teachers]] are the same, weight for weight; give one another seed or network"
        )
    net = MeanNet([teacher.net for teacher in teachers], shares)
    net.eval()
    first, digest = teachers[0], "+".join(digest for digest, _ in pairs)
    return Teacher(net, first.classes, first.dataset_sha256, digest, tuple(pairs))
