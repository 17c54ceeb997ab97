"""Extended Sprites: the same sequences under other labels."""

from __future__ import annotations

import torch

from kpm import datasets


def test_the_same_films_in_the_same_order_with_the_side_as_a_static_factor():
    plain, extended = (datasets.load(name, "paper-test") for name in ("puppets", "puppets_extended"))
    assert extended.static == ("skin", "pants", "top", "hair", "direction") and extended.dynamic == ("action",)
    assert extended.factor_sizes == {"skin": 6, "pants": 6, "top": 6, "hair": 6, "direction": 3, "action": 3}
    assert list(extended.factor_sizes) == list(extended.factors)
    index = torch.arange(0, len(plain), 97)
    assert torch.equal(plain[index], extended[index])
    names = plain.class_names["action"]
    for i in index.tolist():
        side = extended.class_names["direction"][int(extended.factors["direction"][i])]
        action = extended.class_names["action"][int(extended.factors["action"][i])]
        assert names[int(plain.factors["action"][i])] == f"{action} {side}"


def test_without_the_sheets_it_is_made_of_puppets():
    data = datasets.load("sprites_extended", "validation")
    assert (data.name, data.source) == ("puppets_extended", "synthetic")
