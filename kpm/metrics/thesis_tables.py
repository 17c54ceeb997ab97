"""The numbers printed in the SSM-SKD thesis, as data, to stand beside ours. Nothing here is measured by `kpm`.

Keys are `kpm`'s dataset names and, in the order of the thesis, factor names.

- `CLASSES`, `STATIC`, `DYNAMIC`: factors and their numbers of classes (sec. 4.2). The initial scale of 3D Shapes is an
  augmentation and counts in neither score.
- `STATIC_SWAP`, `DYNAMIC_SWAP`: accuracies after static and dynamic sample swaps (Tables 8-11).
- `D_SD`: static-dynamic disentanglement, eq. 6 (Table 12).
- `FACTORIAL`: accuracies after factorial sample swaps, ``FACTORIAL[dataset][retained][factor]`` (Tables 13-16).
- `D_MF`: multi-factor disentanglement, eq. 7 (Table 17).
- `SKD_SPRITES`: both scores of SKD on Sprites. The thesis prints no accuracies of SKD, so these two cannot be derived.
"""

from __future__ import annotations

STATIC: dict[str, tuple[str, ...]] = {
    "sprites": ("skin", "pants", "top", "hair"),
    "dsprites": ("color", "shape", "x", "y"),
    "moving_dsprites": ("color", "shape"),
    "shapes3d": ("floor", "wall", "object", "shape"),
}
DYNAMIC: dict[str, tuple[str, ...]] = {
    "sprites": ("action",),
    "dsprites": ("scale",),
    "moving_dsprites": ("scale", "x", "y"),
    "shapes3d": ("scale", "orientation"),
}


def _named(dataset: str, *values: float) -> dict[str, float]:
    return dict(zip(STATIC[dataset] + DYNAMIC[dataset], values, strict=True))


def _rows(dataset: str, *rows: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return {name: _named(dataset, *row) for name, row in zip(STATIC[dataset], rows, strict=True)}


CLASSES: dict[str, dict[str, int]] = {
    "sprites": _named("sprites", 6, 6, 6, 6, 9),
    "dsprites": _named("dsprites", 6, 3, 8, 8, 10),
    "moving_dsprites": _named("moving_dsprites", 6, 3, 10, 8, 8),
    "shapes3d": _named("shapes3d", 10, 10, 10, 4, 2, 3),
}
STATIC_SWAP: dict[str, dict[str, float]] = {
    "sprites": _named("sprites", 0.1861, 0.1649, 0.1732, 0.1766, 0.9946),
    "dsprites": _named("dsprites", 0.1859, 0.364, 0.1443, 0.1411, 0.712),
    "moving_dsprites": _named("moving_dsprites", 0.1902, 0.8488, 0.8857, 0.9827, 0.9939),
    "shapes3d": _named("shapes3d", 0.102, 0.1176, 0.1386, 0.3787, 0.9249, 0.9975),
}
DYNAMIC_SWAP: dict[str, dict[str, float]] = {
    "sprites": _named("sprites", 0.9607, 0.9878, 0.9942, 1.0, 0.1388),
    "dsprites": _named("dsprites", 0.9919, 0.9256, 0.9996, 0.9993, 0.1518),
    "moving_dsprites": _named("moving_dsprites", 0.9976, 0.4907, 0.1301, 0.1721, 0.1605),
    "shapes3d": _named("shapes3d", 0.968, 0.9995, 0.9521, 0.8836, 0.6122, 0.3693),
}
D_SD: dict[str, float] = {"sprites": 0.9872, "dsprites": 0.9491, "moving_dsprites": 0.8699, "shapes3d": 0.9492}

FACTORIAL: dict[str, dict[str, dict[str, float]]] = {
    "sprites": _rows(
        "sprites",
        (0.8425, 0.1769, 0.1828, 0.1735, 0.1293),
        (0.189, 0.9853, 0.1747, 0.1658, 0.1164),
        (0.1755, 0.1689, 0.9924, 0.1659, 0.115),
        (0.1862, 0.1667, 0.1714, 0.9845, 0.116),
    ),
    "dsprites": _rows(
        "dsprites",
        (0.9846, 0.3438, 0.1366, 0.1378, 0.1022),
        (0.1736, 0.589, 0.1428, 0.1624, 0.1375),
        (0.172, 0.3469, 0.6748, 0.2695, 0.1041),
        (0.17, 0.4039, 0.1753, 0.4654, 0.1009),
    ),
    "moving_dsprites": _rows(
        "moving_dsprites",
        (0.9845, 0.3431, 0.1043, 0.1301, 0.1315),
        (0.18, 0.4738, 0.1268, 0.1485, 0.1465),
    ),
    "shapes3d": _rows(
        "shapes3d",
        (0.9762, 0.1056, 0.1051, 0.2594, 0.5032, 0.3378),
        (0.1079, 0.9867, 0.1038, 0.2617, 0.5018, 0.3461),
        (0.1026, 0.1047, 0.8094, 0.3017, 0.5, 0.3353),
        (0.122, 0.1155, 0.1462, 0.7882, 0.5254, 0.353),
    ),
}
D_MF: dict[str, float] = {"sprites": 0.9836, "dsprites": 0.9142, "moving_dsprites": 0.9348, "shapes3d": 0.971}

SKD_SPRITES: dict[str, float] = {"D_sd": 0.9981, "D_mf": 0.9276}


def kinds(dataset: str) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """Classes of each factor, static factors and dynamic factors: the last three arguments of `d_sd` and `d_mf`."""
    return CLASSES[dataset], STATIC[dataset], DYNAMIC[dataset]
