"""Steps of training replayed as CUDA graphs: small steps cost their kernels, not their launches.

A step of an autoencoder on 256 images of 28x28 pixels is hundreds of kernels of microseconds; launched one by one
they wait for the host. A graph is recorded once for each shape of batch and then launched as one.
"""

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

WARM_UP = 3  # real steps before a recording: optimizer states and workspaces come into being


class CapturedSteps:
    """`work(batch)` run eagerly a few times, then recorded as a graph for its `key` and batch size, and replayed.

    `work` must do the same kernels on the same memory each time: no reads on the host, nothing rebound, and a
    `generator` of the device if it draws. What it writes is on the caller's own tensors. CUDA alone.
    """

    def __init__(self, work: Callable[[Tensor], None], generator: torch.Generator) -> None:
        self.work, self.generator = work, generator
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self.seen: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, tuple[Tensor, torch.cuda.CUDAGraph]] = {}

    def __call__(self, batch: Tensor, key: Hashable = None) -> None:
        """One step on index batch (b,) int64 on the device."""
        at = (key, len(batch))
        if at not in self.graphs:
            self.seen[at] += 1
            if self.seen[at] <= WARM_UP:
                self.work(batch)
                return
            self.graphs[at] = self._record(batch)
        held, graph = self.graphs[at]
        held.copy_(batch)
        graph.replay()

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Steps in here follow all work before, and are followed by all work after: autograd may not mix streams."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def close(self) -> None:
        """Free the graphs; left to the garbage collector, they might go while another is recorded, which ends it."""
        torch.cuda.synchronize()
        self.graphs.clear()

    def _record(self, batch: Tensor) -> tuple[Tensor, torch.cuda.CUDAGraph]:
        held, graph = batch.clone(), torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        options = {"pool": self.pool, "stream": self.stream, "capture_error_mode": "thread_local"}
        collects = gc.isenabled()
        gc.collect()
        gc.disable()  # what it would free may wait for the device
        try:
            with torch.cuda.graph(graph, **options):
                self.work(held)
        finally:
            if collects:
                gc.enable()
        return held, graph


@contextmanager
def reproducible() -> Iterator[None]:
    """CUDA kernels that give the same bits each time, where there are some; the process's settings come back.

    Max pooling has none, but its windows here do not overlap, so that its sums have one term.
    """
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    others = cudnn.deterministic, memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, memory.fill_uninitialized_memory = True, False  # filling would only hide faults
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, memory.fill_uninitialized_memory = others
