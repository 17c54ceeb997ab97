"""One training step of SSM-SKD at the Sprites setting, against a step written straight from the paper.

The reference: float32 networks of PyTorch's own layers in contiguous memory, one pass of the decoder for the
reconstruction and one for the prediction, `lstsq` and `eigvals` on K x K operators in float64 (the thesis's item 4),
PyTorch's default Adam. It runs once as a plain program does, with the C library's allocator as it comes, and once with
the allocator setting of our trainer, to say how much of the ratio that setting is.
"""

from __future__ import annotations

import copy
import ctypes
import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kpm import datasets
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.training import hardware
from kpm.training.config import TrainConfig, preset
from kpm.training.losses import koopman_losses
from kpm.workbook.bench import Benchmark, Case

STEPS = 4


def usual_allocator() -> None:
    """glibc's allocator as it stands after a while in a program that takes and frees large blocks.

    Left alone it raises its mmap threshold to the largest block freed, up to 32 MiB, and trims at twice that; once any
    of these is set it no longer does so by itself, hence the numbers.
    """
    if hardware.keep_freed_memory():
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4
        libc.mallopt(m_mmap_max, 65536)
        libc.mallopt(m_mmap_threshold, 32 << 20)
        libc.mallopt(m_trim_threshold, 64 << 20)


def plain_networks(model: KoopmanAutoencoder) -> nn.ModuleDict:
    """PyTorch's own layers with the weights of `model`."""
    c = model.config
    w = c.width

    def block(layer: nn.Module, channels: int) -> nn.Sequential:
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))

    encoder = nn.Sequential(
        block(nn.Conv2d(c.channels, w, 4, 2, 1), w),
        *(block(nn.Conv2d(a, 2 * a, 4, 2, 1), 2 * a) for a in (w, 2 * w, 4 * w)),
        nn.Sequential(nn.Conv2d(8 * w, c.latent_dim, 4), nn.BatchNorm2d(c.latent_dim), nn.Tanh()),
    )
    decoder = nn.Sequential(
        block(nn.ConvTranspose2d(c.hidden_dim, 8 * w, 4), 8 * w),
        *(block(nn.ConvTranspose2d(2 * a, a, 4, 2, 1), a) for a in (4 * w, 2 * w, w)),
        nn.Sequential(nn.ConvTranspose2d(w, c.channels, 4, 2, 1), nn.Sigmoid()),
    )
    nets = nn.ModuleDict(
        {
            "encoder": encoder,
            "encoder_lstm": nn.LSTM(c.latent_dim, c.latent_dim, batch_first=True),
            "decoder_lstm": nn.LSTM(c.latent_dim, c.hidden_dim, batch_first=True),
            "decoder": decoder,
        }
    )
    nets["encoder"].load_state_dict(model.encoder.cnn.state_dict())
    nets["encoder_lstm"].load_state_dict(model.encoder.lstm.state_dict())
    nets["decoder_lstm"].load_state_dict(model.decoder.lstm.state_dict())
    nets["decoder"].load_state_dict(model.decoder.cnn.state_dict())
    return nets


def plain_losses(nets: nn.ModuleDict, frames: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    n, t = frames.shape[:2]

    def decode(z: Tensor) -> Tensor:
        hidden = nets["decoder_lstm"](z)[0].reshape(n * t, -1, 1, 1)
        return nets["decoder"](hidden).view(frames.shape)

    z = nets["encoder_lstm"](nets["encoder"](frames.flatten(0, 1)).view(n, t, -1))[0]
    past, future = z[:, :-1].double(), z[:, 1:].double()
    operator = torch.linalg.lstsq(past, future, driver="gelsd").solution
    predicted = torch.cat([z[:, :1], (past @ operator).float()], 1)
    values = torch.linalg.eigvals(operator)
    order = (values - 1).abs().argsort(-1)
    values = values.gather(-1, order)
    static, dynamic = values[:, :1], values[:, 1:].real
    reconstruction = decode(nn.functional.dropout(z, config.dropout))
    prediction = decode(predicted)
    return {
        "reconstruction": config.w_reconstruction * mse_loss(reconstruction, frames),
        "predicted_latents": config.w_predicted_latents * mse_loss(predicted, z),
        "prediction": config.w_prediction * mse_loss(prediction, frames),
        "static_eigenvalues": config.w_eigenvalues * (static - 1).abs().square().mean().float(),
        "dynamic_eigenvalues": config.w_eigenvalues
        * torch.where(dynamic > config.threshold, dynamic, 0.0).mean().float(),
    }


def benchmark() -> Benchmark:
    config = preset("ssm-skd", "sprites")
    data = datasets.load("sprites", "train")
    generator = torch.Generator().manual_seed(config.seed)
    frames = data.to_float(data[torch.randint(len(data), (config.batch_size,), generator=generator)])
    plain_frames = frames.contiguous()

    torch.manual_seed(config.seed)
    model = KoopmanAutoencoder(config.model())
    plain = plain_networks(copy.deepcopy(model))
    bf16 = hardware.faster_precision(torch.device("cpu")) == "bf16-mixed"
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    plain_optimizer = torch.optim.Adam(plain.parameters(), config.learning_rate)

    def our_step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(frames)
        sum(koopman_losses(output, frames, config).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()

    def plain_step() -> None:
        sum(plain_losses(plain, plain_frames, config).values()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), config.clip)
        plain_optimizer.step()
        plain_optimizer.zero_grad()

    def run(step: Callable[[], None], allocator: Callable[[], object]) -> None:
        # Several steps a turn: after a change of the allocator the first one pays for the other's habits.
        allocator()
        for _ in range(STEPS):
            step()

    ours = partial(run, our_step, hardware.keep_freed_memory)
    reference = partial(run, plain_step, usual_allocator)
    tuned_reference = partial(run, plain_step, hardware.keep_freed_memory)

    def check(_: None, __: None) -> None:
        """With the same weights, in float32 and without dropout, both compute the same losses."""
        torch.manual_seed(config.seed)
        fresh = KoopmanAutoencoder(config.model())
        fresh.drop.p = 0.0
        still = dataclasses.replace(config, dropout=0.0)
        mine = koopman_losses(fresh(frames), frames, still)
        theirs = plain_losses(plain_networks(fresh), plain_frames, still)
        for name in mine:
            # Operators of barely different frames magnify what float32 rounds differently in the two networks.
            tolerance = 2e-3 if "eigenvalues" in name else 1e-4
            torch.testing.assert_close(
                mine[name], theirs[name], rtol=tolerance, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )

    name = "plain float32 step: two decoder passes, lstsq and eigvals on K x K"
    cases = (
        Case(f"{STEPS}_steps", ours, reference, name, check, minimum=2.5),
        Case(f"{STEPS}_steps_same_allocator", ours, tuned_reference, f"{name}, allocator as ours", check),
    )
    notes = f"networks in {'bf16' if bf16 else 'float32'}, {data.name} ({data.source})"
    return Benchmark("train_step", cases, notes=notes)
