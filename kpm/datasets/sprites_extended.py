"""Sprites with the side a character is seen from as a factor of its own, since it never changes within a sequence.

The nine "actions" of Sprites are three actions seen from three sides. Here the side is a fifth static factor and the
action has three classes ([SSM-SKD] sec. 8.5). Sequences, splits and their order are those of Sprites.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kpm.datasets import puppets, sprites
from kpm.datasets.base import SequenceDataset


def load(split: str = "train", root: Path | None = None) -> SequenceDataset:
    """Extended Sprites from the real sheets; parameters as for `kpm.datasets.sprites.load`."""
    return extend(sprites.load(split, root), "sprites_extended")


def load_puppets(split: str = "train") -> SequenceDataset:
    """The same factors on the stand-in."""
    return extend(puppets.load(split), "puppets_extended")


def extend(data: SequenceDataset, name: str) -> SequenceDataset:
    """Take the factor ``action`` (9) of a Sprites-like dataset apart into ``direction`` (3, static) and action (3)."""
    labels, compose = dict(data.factors), data.compose
    both = labels.pop("action")
    sides = len(sprites.DIRECTIONS)

    def composed(labels):
        return compose({**labels, "action": labels["action"] * sides + labels["direction"]})

    return dataclasses.replace(
        data,
        name=name,
        factors={**labels, "direction": both % sides, "action": both // sides},
        factor_sizes={
            **{f: data.factor_sizes[f] for f in labels},
            "direction": sides,
            "action": len(sprites.ACTIONS),
        },
        static=(*data.static, "direction"),
        compose=composed,
        class_names={**data.class_names, "direction": sprites.DIRECTIONS, "action": sprites.ACTIONS},
        description=f"{data.description}; the side a factor of its own",
    )
