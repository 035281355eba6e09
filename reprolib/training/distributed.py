"""Several processes on each batch: all hold the same networks, each takes its part, and they step together.

A script that torchrun starts calls `torch.distributed.init_process_group()`, and on GPUs `torch.cuda.set_device` with
its LOCAL_RANK, then fits as ever: the trainer averages gradients and losses, batch normalisation sees the whole batch,
and the first process alone writes. All draw the same numbers on the host, for whole batches. Without a process group
everything here gives back what it takes.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def part(whole: Tensor, axis: int = 0) -> Tensor:
    """This process's part of a whole along an axis; all are of one size. ValueError where that cannot be."""
    n = whole.shape[axis]
    if n == 0 or n % size():
        raise ValueError(f"{size()} processes cannot share {n} samples evenly: choose batches that they divide")
    return whole.narrow(axis, rank() * (n // size()), n // size())


def gathered(own: Tensor, axis: int = 0) -> Tensor:
    """The whole of which each process has a part of one shape, put together along an axis; differentiable once.

    The gradient is the sum over the losses of all processes: once averaged, gradients are those of the mean loss. Two
    views of each image, (2 b, d) for the b of this process, are gathered as (2, b, d) along axis 1.
    """
    return own if size() == 1 else torch.cat(_Gathered.apply(own.contiguous()).unbind(), axis)


@torch.no_grad()
def average(tensors: Iterable[Tensor | None]) -> None:
    """Set floating-point tensors to their means over the processes, in one message; others and None are left alone."""
    if size() == 1:
        return
    each = [tensor for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    if not each:
        return
    joined = torch.cat([tensor.ravel() for tensor in each])
    dist.all_reduce(joined)
    joined /= size()
    for tensor, mean in zip(each, joined.split([tensor.numel() for tensor in each]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def share_statistics(network: nn.Module) -> nn.Module:
    """The network, its batch normalisation by the statistics of the whole batch: each part counts alike."""
    if size() == 1:
        return network
    if any(weight.is_cuda for weight in network.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _SharedBatchNorm  # with the weights that optimizers may hold already
    return network


def wait() -> None:
    """Until all processes are here."""
    if size() > 1:
        dist.barrier()


class _Gathered(torch.autograd.Function):
    """Parts (...) to (processes, ...)."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(size())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank()]


class _Mean(torch.autograd.Function):
    """Mean over the processes, differentiable once."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total / size()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradient)


class _SharedBatchNorm(_BatchNorm):
    """Batch normalisation of (b, c, ...), with weights and running statistics; PyTorch's own asks for CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        wide = x if x.dtype == torch.float64 else x.float()
        mean = _Mean.apply(wide.mean(axes))  # (c,)
        centred = wide - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(axes))
        n = size() * x.numel() // x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        """Any."""
