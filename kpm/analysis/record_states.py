"""Hidden states of any torch module, recorded with hooks while it reads data: what `KANN` analyses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from kpm.errors import UserError, pick
from kpm.solvers import checks

# Layers of sequences: what they give in two axes is one sequence without a batch axis.
_SEQUENCE = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


@dataclasses.dataclass(frozen=True)
class Recording:
    """States of one batch.

    Attributes
    ----------
    states : Tensor
        ``(n, time, hidden)``, detached, on the model's device; time is depth if several layers were recorded.
    lengths : Tensor or None
        int64 ``(n,)``: how many leading frames count; None if all do.
    output : Any
        What `output` made of the model's answer, or None.
    """

    states: Tensor
    lengths: Tensor | None
    output: Any = None


def record_states(
    model: nn.Module,
    data: Any,
    layer: str | nn.Module | None = None,
    *,
    layers: Sequence[str | nn.Module] | None = None,
    state: Literal["h", "c"] = "h",
    select: Callable[[Any], Tensor] | None = None,
    batch_first: bool | None = None,
    batch_size: int = 64,
    lengths: Any = None,
    output: Callable[[Any], Any] | None = None,
    call: Callable[[nn.Module, Any], Any] | None = None,
) -> Iterator[Recording]:
    """Run `model` over `data` and yield the states of a layer, batch by batch.

    A network analysed in five lines::

        kann = KANN()
        for batch in record_states(model, loader, layer="gru"):
            kann.partial_fit(batch.states, batch.lengths)
        print(kann.eigenvalues_[:4])
        print(kann.memory_horizon_[:4])

    Parameters
    ----------
    model : nn.Module
        Runs in eval mode without gradients. Each batch leaves it as it was: training flags, hooks.
    data : Tensor or array ``(n, ...)``, PackedSequence, or iterable of batches
        An array is cut into batches along its first axis. Along the second, for ``(time, n, ...)``, where
        ``batch_first=False`` is given or the model itself is a recurrent or attention layer that is not batch first;
        of an inner layer it is not known what the model takes. A single sequence ``(time, features)`` for such a
        layer is not cut. A packed sequence is one batch. A batch is moved to the model's device.
    layer : str or nn.Module, optional
        A name in ``model.named_modules()``, or the module. By default the only recurrent layer of the model, or the
        model itself if it has none. Recurrent layers (batch first or not, packed or not), recurrent cells called in a
        loop, attention, and anything that gives ``(n, time, hidden)``.
    layers : sequence of str or nn.Module, optional
        Instead of `layer`: a stack of layers of equal width, such as residual blocks. States are
        ``(n, depth, features)``, in the order given; features are flattened.
    state : {"h", "c"}
        Hidden or cell state of an LSTM. Cell states are computed again step by step, since `nn.LSTM` gives the last
        one only; not for bidirectional ones.
    select : callable, optional
        From the raw output of a layer to a tensor ``(n, time, hidden)`` (``(n, ...)`` for `layers` and for a layer
        called many times), where that is not plain; for example a mean over pixels, or one token.
    batch_first : bool, optional
        Whether the output of a layer, and `data` if it is an array, have the batch first. By default, for the output,
        what the layer, or the first recurrent or attention layer in it, says of itself, else True; for `data`, see
        there.
    batch_size : int
        How many sequences of an array go through the model at a time.
    lengths : int ``(n,)``, or callable of a batch, optional
        How many leading frames of each sequence count: numbers for an array, a callable for an iterable. Known for
        packed sequences.
    output : callable, optional
        From the model's answer to what to keep of it.
    call : callable, optional
        ``call(model, batch)`` runs the model. By default ``model(batch)``, ``model(**batch)`` for a mapping, and
        ``model(batch[0])`` for a tuple or list, as of (input, label).

    Raises
    ------
    UserError
        For the name of a layer that does not exist; the nearest ones are named.
    ValueError
        For a layer that is never called, layers of different widths, output that has no time axis, or an array whose
        batches turn out to be pieces of its time.
    """
    if layer is not None and layers is not None:
        raise ValueError("layer, layers: give one of them")
    if state not in ("h", "c"):
        raise ValueError(f"state: expected 'h' or 'c', got {state!r}")
    if layers is not None and (isinstance(layers, str | nn.Module) or len(layers) < 2):
        raise ValueError(f"layers: expected two or more layers, got {layers!r}")
    chosen = {name: module for name, module in (_find(model, one) for one in (layers or [layer]))}
    if layers is not None and len(chosen) < len(layers):
        raise ValueError(f"layers: the same layer twice in {list(layers)!r}")

    def run() -> Iterator[Recording]:
        axis = _batch_axis(model, data, batch_first)
        for batch, given in _batches(data, batch_size, lengths, axis):
            readers = [_Reader(name, module, state, select, batch_first) for name, module in chosen.items()]
            with _hooked(model, readers), torch.no_grad():
                answer = _run(model, _to(batch, model), call)
                kept = None if output is None else output(answer)
            states, known = readers[0].frames() if layers is None else (_depth(readers), None)
            if isinstance(data, Tensor | np.ndarray) and axis is not None and batch.shape[axis] < data.shape[axis]:
                _not_pieces_of_time(states, batch.shape[axis], axis, tuple(data.shape))
            yield Recording(states, _checked(given if known is None else known, states), kept)

    return run()


def collect(recordings: Iterable[Recording]) -> Recording:
    """All batches in one, padded with zeros to the longest; outputs as a list. For data that fits in memory."""
    batches = list(recordings)
    if not batches:
        raise ValueError("recordings: there are none")
    time = max(batch.states.shape[1] for batch in batches)
    lengths = None
    if any(batch.lengths is not None or batch.states.shape[1] < time for batch in batches):
        full = [torch.full((len(b.states),), b.states.shape[1], device=b.states.device) for b in batches]
        lengths = torch.cat([f if b.lengths is None else b.lengths for b, f in zip(batches, full, strict=True)])
    padded = [nn.functional.pad(b.states, (0, 0, 0, time - b.states.shape[1])) for b in batches]
    return Recording(torch.cat(padded), lengths, [b.output for b in batches])


class _Reader:
    """A hook that keeps copies of the states of a layer, one for each call."""

    def __init__(self, name: str, module: nn.Module, state: str, select: Any, batch_first: bool | None) -> None:
        self.name, self.module, self.state, self.select = name, module, state, select
        self.batch_first = _batch_first(module) if batch_first is None else batch_first
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def __call__(self, _: nn.Module, args: tuple, kwargs: dict, result: Any) -> None:
        x, lengths = self._read(args, kwargs, result)
        if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point() or x.is_nested:
            what = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"layer {self.name!r}: expected real states (n, ...), got {what}; give select")
        self.calls.append((x.detach().clone(), lengths))

    def frames(self) -> tuple[Tensor, Tensor | None]:
        """``(n, time, hidden)`` and lengths, from one call or from one per time step."""
        x, lengths = self._called()[0]
        if len(self.calls) == 1 and x.ndim == 3:
            return x, lengths
        if len(self.calls) > 1 and x.ndim == 2:
            return torch.stack([x for x, _ in self.calls], 1), None
        if len(self.calls) > 1 and x.ndim == 3 and isinstance(self.module, nn.RNNBase):
            return torch.cat([x for x, _ in self.calls], 1), None
        raise ValueError(
            f"layer {self.name!r}: called {len(self.calls)} times with output of shape {tuple(x.shape)}, expected "
            "(n, time, hidden) once or (n, hidden) many times; give select, or layers for depth as time"
        )

    def rows(self) -> Tensor:
        """``(n, calls, features)``: states as points in depth."""
        return torch.stack([x.flatten(1) for x, _ in self._called()], 1)

    def _called(self) -> list[tuple[Tensor, Tensor | None]]:
        if not self.calls:
            raise ValueError(f"layer {self.name!r}: the model did not call it")
        return self.calls

    def _read(self, args: tuple, kwargs: dict, result: Any) -> tuple[Any, Tensor | None]:
        """Output of one call with the batch first, and lengths if it is packed."""
        if self.select is not None:
            return self.select(result), None
        if self.state == "c":
            return self._cells(args, kwargs, result)
        x = result[0] if isinstance(result, tuple) and not isinstance(result, PackedSequence) else result
        if isinstance(x, PackedSequence):
            return pad_packed_sequence(x, batch_first=True)
        if not isinstance(x, Tensor) or x.ndim < 2:
            return x, None
        if isinstance(self.module, _SEQUENCE) and x.ndim == 2:
            return x.unsqueeze(0), None  # a single sequence without a batch axis
        return (x if self.batch_first or x.ndim < 3 else x.transpose(0, 1)), None

    def _cells(self, args: tuple, kwargs: dict, result: Any) -> tuple[Tensor, Tensor | None]:
        """Cell states ``(n, time, hidden)`` of the last layer of an LSTM, and lengths if its input is packed."""
        if isinstance(self.module, nn.LSTMCell):
            return result[1], None
        if not isinstance(self.module, nn.LSTM) or self.module.bidirectional:
            raise ValueError(f"state: 'c' needs an LSTM in one direction, layer {self.name!r} is {self.module}")
        x = args[0] if args else kwargs["input"]
        memory, lengths, first = args[1] if len(args) > 1 else kwargs.get("hx"), None, self.module.batch_first
        if isinstance(x, PackedSequence):
            x, lengths = pad_packed_sequence(x, batch_first=first)
        cells = []
        for step in x.split(1, 1 if first and x.ndim == 3 else 0):
            memory = self.module.forward(step, memory)[1]  # not a call, which would run the hook again
            cells.append(memory[1][-1])
        cells = torch.stack(cells, -2)
        if lengths is not None:
            seen = torch.arange(cells.shape[1], device=cells.device) < lengths.to(cells.device).unsqueeze(1)
            cells = torch.where(seen.unsqueeze(-1), cells, 0)
        return cells if cells.ndim == 3 else cells.unsqueeze(0), lengths


@contextmanager
def _hooked(model: nn.Module, readers: Sequence[_Reader]) -> Iterator[None]:
    """Eval mode, and hooks on some modules, for as long as this lasts; all is as before also after an error."""
    training = [module for module in model.modules() if module.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    hooks = []
    try:
        model.eval()
        torch.backends.mha.set_fastpath_enabled(False)  # fused attention skips layers and nests tensors
        for reader in readers:
            hooks.append(reader.module.register_forward_hook(reader, with_kwargs=True))
        yield
    finally:
        for handle in hooks:
            handle.remove()
        torch.backends.mha.set_fastpath_enabled(fused)
        for module in training:
            module.training = True


def _find(model: nn.Module, layer: str | nn.Module | None) -> tuple[str, nn.Module]:
    """A layer by name, by itself, or the only recurrent one."""
    modules = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name, module
        raise ValueError(f"layer: this {type(layer).__name__} is no part of the model")
    if layer is None:
        recurrent = [name for name, module in modules.items() if isinstance(module, nn.RNNBase | nn.RNNCellBase)]
        if len(recurrent) > 1:
            raise ValueError(f"layer: the model has several recurrent layers, give one of {', '.join(recurrent)}")
        layer = recurrent[0] if recurrent else ""
    if not isinstance(layer, str):
        raise ValueError(f"layer: expected a name or a module, got {type(layer).__name__}")
    if layer not in modules:
        named = [name for name in modules if name]  # the model itself has the empty name
        if not named:
            kind = type(model).__name__
            raise UserError(f"unknown layer {layer!r}; this {kind} is itself the only one; leave it out")
        pick("layer", layer, named)
    return layer, modules[layer]


def _batch_first(module: nn.Module) -> bool:
    """What a layer, or the first recurrent or attention layer in it, says of its axes."""
    known = (m for m in module.modules() if isinstance(m, nn.RNNBase | nn.MultiheadAttention))
    return next((m.batch_first for m in known), True)


def _batch_axis(model: nn.Module, data: Any, batch_first: bool | None) -> int | None:
    """Along which axis an array is cut into batches; None for a single sequence, which is not cut.

    Only a model that is a layer of sequences itself tells how its input lies: a larger one may turn it inside.
    """
    itself = isinstance(model, _SEQUENCE)
    if itself and getattr(data, "ndim", 0) == 2:
        return None
    if batch_first is None:
        batch_first = _batch_first(model) if itself else True
    return 0 if batch_first or getattr(data, "ndim", 0) < 2 else 1


def _not_pieces_of_time(states: Tensor, size: int, axis: int, shape: tuple[int, ...]) -> None:
    """An error where the `size` rows of a batch come back as so many frames: each piece began at a state of zero."""
    n, time = states.shape[:2]
    if n != size and time == size:
        raise ValueError(
            f"data: axis {axis} of shape {shape} is time for this model (a batch of {size} gave {n} sequences of "
            f"{time} frames); give batches of your own{' or batch_first=False' if axis == 0 else ''}"
        )


def _batches(data: Any, size: int, lengths: Any, axis: int | None) -> Iterator[tuple[Any, Any]]:
    """Batches, of an array along `axis`, and the lengths given for them."""
    if isinstance(data, PackedSequence):
        yield data, None
    elif isinstance(data, Tensor | np.ndarray):
        if callable(lengths):
            raise ValueError("lengths: expected numbers for an array, got a callable")
        count = 1 if axis is None else data.shape[axis]
        if lengths is not None and len(lengths) != count:
            raise ValueError(f"lengths: {len(lengths)} numbers for {count} sequences")
        size = checks.count(size, "batch_size", 1, 10**9)
        if axis is None:
            yield data, lengths
            return
        for b in range(0, count, size):
            part = (slice(None),) * axis + (slice(b, b + size),)
            yield data[part], None if lengths is None else lengths[b : b + size]
    elif isinstance(data, Mapping | str) or not isinstance(data, Iterable):
        raise ValueError(f"data: expected an array or an iterable of batches, got {type(data).__name__}")
    else:
        if lengths is not None and not callable(lengths):
            raise ValueError("lengths: expected a callable of a batch, since data comes in batches")
        for batch in data:
            yield batch, None if lengths is None else lengths(batch)


def _to(batch: Any, model: nn.Module) -> Any:
    """A batch on the model's device; numbers of numpy arrays in its dtype."""
    home = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), torch.empty(0))
    if isinstance(batch, np.ndarray):
        batch = torch.from_numpy(np.array(batch))
        batch = batch.to(home.dtype) if batch.is_floating_point() else batch
    if isinstance(batch, Tensor | PackedSequence):
        return batch.to(home.device)
    if isinstance(batch, Mapping):
        return {key: _to(value, model) for key, value in batch.items()}
    return [_to(part, model) for part in batch] if isinstance(batch, tuple | list) else batch


def _run(model: nn.Module, batch: Any, call: Callable[[nn.Module, Any], Any] | None) -> Any:
    if call is not None:
        return call(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, list) else batch)


def _depth(readers: Sequence[_Reader]) -> Tensor:
    """States of several layers one after another, ``(n, depth, features)``."""
    rows = [reader.rows() for reader in readers]
    if len({(len(x), x.shape[-1]) for x in rows}) > 1:
        shapes = ", ".join(f"{reader.name} {tuple(reader.calls[0][0].shape)}" for reader in readers)
        raise ValueError(f"layers: expected outputs of one shape, got {shapes}; give select")
    return torch.cat(rows, 1)


def _checked(lengths: Any, states: Tensor) -> Tensor | None:
    if lengths is None:
        return None
    lengths = torch.as_tensor(lengths)
    n, time = states.shape[:2]
    if lengths.shape != (n,) or lengths.is_floating_point() or lengths.min() < 0 or lengths.max() > time:
        raise ValueError(f"lengths: expected {n} whole numbers from 0 to {time}, got {lengths}")
    return lengths.to(states.device, torch.int64)
