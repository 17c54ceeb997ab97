"""Gradients that are right once, and say so where a second derivative is asked for.

A backward pass written by hand holds what it found in the forward pass fixed. Its gradient is right; the derivative of
that gradient would leave out how the fixed numbers move, and be wrong without a word. PyTorch's `once_differentiable`
does not help: its error is met by a second `backward` alone, and only if the first began with a gradient that has one.

Here a gradient made for a graph of its own (``create_graph=True``) is tied to what the numbers depend on by a node that
raises. It is met whenever a derivative of the gradient takes that way, and never otherwise: an ordinary backward pass,
or a graph nobody goes through again, is what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def tie(gradient: Tensor, what: str, *sources: Tensor) -> Tensor:
    """The gradient of a backward pass, which raises where it is differentiated with respect to `sources`.

    Parameters
    ----------
    gradient : Tensor
        Any shape. What it depends on through autograd's own operations stays differentiable.
    what : str
        What the error is about.
    sources : Tensor
        What the backward pass took for constant, as autograd knows it: from `save_for_backward`.

    Returns
    -------
    Tensor
        The same numbers. Where no graph is made, `gradient` itself.
    """
    if not torch.is_grad_enabled():
        return gradient
    return _Tie.apply(gradient, *(_Refuse.apply(source, what) for source in sources if source.requires_grad))


def guard(x: Tensor, what: str) -> Tensor:
    """`x` for a formula whose other terms are held fixed: right to first order, an error to second.

    Parameters
    ----------
    x : Tensor
        Any shape.
    what : str
        What the error is about.
    """
    return _Guard.apply(x, what) if x.requires_grad else x


def replace(value: Tensor, what: str, backward: Callable[[Tensor], Tensor]) -> Tensor:
    """`value`, with another gradient sent on than the one that arrives.

    Parameters
    ----------
    value : Tensor
        Any shape.
    what : str
        What the error is about.
    backward : callable
        From the gradient that arrives to the one sent on, both of the shape of `value`, without a graph. Where no
        gradient arrives it is given zeros.
    """
    return _Replace.apply(value, what, backward)


class _Refuse(torch.autograd.Function):
    """Nothing, as a function of something: its gradient is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(source: Tensor, what: str) -> Tensor:
        return source.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.what = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        raise NotImplementedError(f"{ctx.what} is differentiable once: there is no second derivative")


class _Tie(torch.autograd.Function):
    """The first argument; the others are there for their graphs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *refusals: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(refusal) for refusal in ctx.saved_tensors)


class _Guard(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, what: str) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.what = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return tie(gradient, ctx.what, *ctx.saved_tensors), None


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, what: str, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(value)
        ctx.what, ctx.change = what, backward
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            changed = ctx.change(gradient.detach())
        # How the change depends on the gradient is as unknown to autograd as how it depends on the value.
        return tie(changed, ctx.what, *ctx.saved_tensors, gradient), None, None
