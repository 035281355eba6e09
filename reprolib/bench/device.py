"""Kernels and training steps on a device: time, share of the floor, plain and compiled PyTorch beside it.

A floor is the larger of FLOPs over the measured rate of a matrix product and bytes over that of a copy, the least that
a kernel must compute and move. On CUDA a time is a median of events, on the CPU the least of a few.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprolib.bench import contrastive, steps
from reprolib.bench.timing import gemm_ceiling
from reprolib.bench.timing import measure as smallest
from reprolib.bench.views import cost as cost_of_views
from reprolib.experiments.machine import machine
from reprolib.kernels.contrastive import contrastive_loss
from reprolib.kernels.knn import cost, knn
from reprolib.kernels.pairwise import pairwise_loss
from reprolib.kernels.views import RECIPES, draw, vectorised, views
from reprolib.methods import JULE
from reprolib.report.tables import Table
from reprolib.training.trainer import Run, Stage, Steps

K, N_CLUSTERS = 20, 10
BLOCK = 4096  # rows of a plain search that are compared at once: 1.1 GB of distances at 70,000
ROUND_SECONDS = 0.03  # of calls between two events
VIEWS = (("digits", (1024, 1, 28, 28)), ("simclr", (1024, 3, 32, 32)), ("simclr", (256, 3, 96, 96)))
QUICK = {
    "searches": ((256, 16),),
    "batches": (50,),
    "pairs": (64,),
    "pictures": (("simclr", (8, 3, 8, 8)),),
    "sides": (16,),
    "size": 16,
}
PLAIN, COMPILED = "plain PyTorch", "torch.compile"
MEMBERS = (*steps.MEMBERS, "JULE")


def measure(
    *,
    device: str = "cuda",
    searches: tuple[tuple[int, int], ...] = ((8_192, 160), (65_536, 160), (65_536, 784)),
    batches: tuple[int, ...] = (500, 10_000),
    pairs: tuple[int, ...] = contrastive.SIZES,
    pictures: tuple[tuple[str, tuple[int, ...]], ...] = VIEWS,
    sides: tuple[int, ...] = (28,),
    size: int = 500,
) -> dict[str, Any]:
    """Seconds of k-NN searches (n, d), pair losses of `batches`, contrastive losses of `pairs`, views of `pictures` and
    training steps; printed too.

    A step is one on `size` images. Returns {"device", "rates": FLOP/s by precision and bytes/s, "kernels": {name:
    {way: s, "floor": s}}, "steps": {"16x16": {name: {precision: {"eager": s, "captured": s}, "flops": FLOPs}}}}; a way
    that fails is told as text.
    """
    on = torch.device(device)
    compiles = on.type == "cuda"  # half a minute each on the CPU
    rates = {name: _product_rate(name, on) for name in steps.PRECISIONS} | {"copy": _copy_rate(on)}
    found: dict[str, Any] = {"device": machine()["device_name"], "rates": rates, "kernels": {}, "steps": {}}
    for side in sides:
        pixels = (steps.BATCHES * size, side, side)
        images = np.random.default_rng(0).integers(0, 256, pixels, dtype=np.uint8)
        found["steps"][f"{side}x{side}"] = {name: _step(name, images, size, on) for name in MEMBERS}
        print(f"\n{steps_table(found, f'{side}x{side}', size)}", flush=True)
    for n, d in searches:
        x = torch.randn(n, d, device=on)
        work = cost(n, d, K)
        floor = max(work["flops"] / rates["float32"], work["bytes"] / rates["copy"])
        ways = {"ours": partial(knn, x, K), PLAIN: partial(plain_search, x, plain_block)}
        if compiles:
            ways[COMPILED] = partial(plain_search, x, torch.compile(plain_block))
        found["kernels"][f"k-NN search, n {n:,}, d {d}"] = _ways(ways, on) | {"floor": floor}
    for b in batches:
        q = torch.softmax(torch.randn(b, N_CLUSTERS, device=on), 1).requires_grad_()
        ways = {"ours": partial(_with_gradient, lambda q: pairwise_loss(q)[0], q)}
        ways[PLAIN] = partial(_with_gradient, plain_pairs, q)
        if compiles:
            ways[COMPILED] = partial(_with_gradient, torch.compile(plain_pairs), q)
        floor = max(4 * b * b * N_CLUSTERS / rates["float32"], 8 * b * N_CLUSTERS / rates["copy"])
        found["kernels"][f"pair loss and gradient, {b:,} rows"] = _ways(ways, on) | {"floor": floor}
    for n in pairs:
        z = torch.randn(n, contrastive.D, device=on, requires_grad=True)
        votes = torch.randint(contrastive.CLUSTERS, (n // 2, 1), device=on).repeat(1, contrastive.MODELS)
        ways = {"ours": contrastive.step(contrastive_loss, z, votes)}
        ways[PLAIN] = contrastive.step(contrastive.plain_loss, z, votes)
        if compiles:
            ways[COMPILED] = contrastive.step(torch.compile(contrastive.plain_loss), z, votes)
        floor = max(contrastive.flops(n) / rates["float32"], 8 * n * contrastive.D / rates["copy"])
        found["kernels"][f"contrastive loss and gradient, {n:,} vectors"] = _ways(ways, on) | {"floor": floor}
    for name, shape in pictures:
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=on)
        half = torch.full(shape[1:2], 0.5, device=on)
        given = images, draw(len(images), device=on), RECIPES[name], half, half
        ways = {"ours": partial(views, *given), PLAIN: partial(vectorised, *given)}
        if compiles:
            ways[COMPILED] = partial(torch.compile(vectorised), *given)
        needs = cost_of_views(*shape)
        floor = max(needs["flops"] / rates["float32"], needs["bytes"] / rates["copy"])
        shown = "x".join(map(str, shape[1:]))
        found["kernels"][f"views, {name}, {shape[0]:,} of {shown}"] = _ways(ways, on) | {"floor": floor}
    print(f"\n{kernels_table(found)}", flush=True)
    return found


def kernels_table(found: dict[str, Any]) -> Table:
    """Milliseconds of each kernel, its share of the floor, and how many times longer the other ways take."""
    rows = []
    for name, row in found["kernels"].items():
        cells = [name, _ms(row["ours"])]
        cells.append(f"{row['floor'] / row['ours']:.2f}" if isinstance(row["ours"], float) else "")
        for way in (PLAIN, COMPILED):
            both = isinstance(row.get(way), float) and isinstance(row["ours"], float)
            cells.append(f"{row[way] / row['ours']:.2f}" if both else str(row.get(way, "left out"))[:40])
        rows.append(cells)
    return Table(["", "ours, ms", "share of floor", *(f"{w}, times ours" for w in (PLAIN, COMPILED))], rows)


def steps_table(found: dict[str, Any], shape: str, size: int) -> Table:
    """Eager and captured milliseconds, images a second and share of the floor, by precision."""
    rows = []
    for name, row in found["steps"][shape].items():
        cells = [name]
        for precision in steps.PRECISIONS:
            eager, captured = row[precision]["eager"], row[precision]["captured"]
            best = captured or eager
            cells += [_ms(eager), "" if captured is None else _ms(captured), f"{row['images'] / best:,.0f}"]
            cells.append(f"{row['flops'] / found['rates'][precision] / best:.2f}")
        rows.append(cells)
    columns = ("eager, ms", "captured, ms", "images/s", "share of floor")
    head = ["", *(f"{p}: {c}" for p in steps.PRECISIONS for c in columns)]
    return Table(head, rows, f"One step on images of {shape} pixels, batches of {size}; JULE's of {JULE.batch_size}")


def plain_block(x: Tensor, own: Tensor) -> Tensor:
    """Indices (b, K) of the nearest others of the rows `own` (b,) of x, as anyone would write it."""
    squared = torch.cdist(x[own], x).scatter(1, own[:, None], torch.inf)
    return squared.topk(K, largest=False).indices


def plain_search(x: Tensor, block: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Indices (n, K), BLOCK rows at a time."""
    return torch.cat([block(x, own) for own in torch.arange(len(x), device=x.device).split(BLOCK)])


def plain_pairs(q: Tensor, zeta: float = 0.8, gamma: float = 0.2) -> Tensor:
    """Equation 5 of paper 004 over a B x B matrix."""
    s = q @ q.T
    return torch.where(s >= zeta, 1 - s, 0.0).sum() + torch.where(s <= gamma, s, 0.0).sum()


def _step(name: str, images: np.ndarray, size: int, device: torch.device) -> dict[str, Any]:
    row: dict[str, Any] = {"images": min(JULE.batch_size, len(images)) if name == "JULE" else size}
    for precision in steps.PRECISIONS:
        if name == "JULE":
            stage = _jule(images, precision, device)
        else:
            stage = steps.start(name, images, size, precision, device.type)
        run, batch = stage.run, torch.arange(row["images"], device=stage.run.inputs.device)
        run.modules.train()
        stage.schedule()
        row["flops"] = steps.count_flops(partial(stage.step, batch))
        taken = Steps(stage, None)
        row[precision] = {"eager": _seconds(partial(taken._take, batch), device), "captured": None}
        if run.on_cuda:
            captured = run.steps_of(stage).captured
            with captured.on_stream():
                row[precision]["captured"] = _seconds(partial(captured, batch, stage.branch()), device)
    return row


def _jule(images: np.ndarray, precision: str, device: torch.device) -> Stage:
    model = JULE(2, device=device.type, precision=precision)  # fewer than any few images start from
    X = images[:, None]
    run = Run(model, model.inputs(X))
    stage = model.stages(run, X)[0]
    stage.build()
    stage.begin()
    return stage


def _with_gradient(loss: Callable[[Tensor], Tensor], q: Tensor) -> None:
    q.grad = None
    loss(q).backward()


def _ways(ways: dict[str, Callable[[], object]], device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, work in ways.items():
        try:
            found[name] = _seconds(work, device)
            print(f"{name}: {_ms(found[name])} ms", flush=True)
        except Exception as error:  # noqa: BLE001 - a way may lack memory or a compiler: the others count
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call: on CUDA the median of a few rounds between events that the device writes."""
    if device.type == "cpu":
        work()
        return smallest({"": work})[""]["seconds"]

    def between(rounds: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(rounds):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / rounds

    between(5)  # compiles, records, warms up
    rounds = max(3, min(50, int(ROUND_SECONDS / between(3))))
    return float(np.median([between(rounds) for _ in range(5)]))


def _product_rate(precision: str, device: torch.device) -> float:
    if device.type == "cpu":
        return gemm_ceiling(steps.WIDTH, precision)
    n = 8192
    a, b = (torch.randn(n, n, device=device).to(getattr(torch, precision)) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: a @ b, device)


def _copy_rate(device: torch.device) -> float:
    """Bytes a second of a copy on the device, read and written."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 26), dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _ms(seconds: float | str) -> str:
    return f"{1e3 * seconds:.3g}" if isinstance(seconds, float) else str(seconds)[:40]
