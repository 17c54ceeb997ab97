"""Which films of a batch move alike."""

import torch

from kpm import datasets, paths
from kpm.models import koopman
from kpm.models.similar_motion import nearest_motion
from kpm.training import checkpoint


def test_the_nearest_is_found_and_the_far_have_none():
    draw = torch.Generator().manual_seed(1)
    centres = 5 * torch.randn(3, 8, 4, generator=draw, dtype=torch.float64)
    kinds = torch.tensor([0, 1, 0, 2, 1, 0])
    films = centres[kinds] + 0.1 * torch.randn(6, 8, 4, generator=draw, dtype=torch.float64)
    films.requires_grad_()
    found = nearest_motion(films)
    assert found[3] == -1 and not found.requires_grad
    others = [0, 1, 2, 4, 5]
    assert torch.equal(kinds[found[others]], kinds[others])
    rows = [*films.detach()]
    apart = [[float((a - b).norm()) if a is not b else torch.inf for b in rows] for a in rows]
    assert [int(torch.tensor(row).argmin()) for row in apart][:3] == found[:3].tolist()


def test_sprites_that_move_alike_have_the_same_action(real_sprites):
    """No label goes in: the dynamic parts of the shipped model tell."""
    model, _ = checkpoint.load_model(paths.checkpoints() / "skd_sprites.safetensors")
    films = datasets.load("sprites", "validation", "real")
    right = []
    with torch.no_grad():
        for index in torch.randperm(900, generator=torch.Generator().manual_seed(1))[:256].split(32):
            z = model.encode(films.to_float(films[index]))
            found = nearest_motion(koopman.split(z, "batch", model.config.static_size).dynamic)
            action = films.factors["action"][index]
            right.append((action[found] == action)[found >= 0])
    right = torch.cat(right)
    assert right.double().mean() > 0.99 and len(right) > 0.9 * 256
