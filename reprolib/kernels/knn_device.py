"""The path of the exact k-NN search for rows on a GPU: blocks of rows in plain PyTorch.

`reprolib.kernels.knn` holds the mathematics. The products of a block of rows with all rows are written, searched by
`topk` and forgotten; the candidates' distances are computed again on the device. Rows that the bound cannot settle go
to the CPU path, which is exact for any input. Nothing here is CUDA's alone, so the CPU's tests run every line.
"""

import torch

from reprolib.kernels.knn_cpu import SPARE, UNIT, knn_cpu, prepare

BLOCK_BYTES = 5e8  # of one block, beside the features and their centred copy


def knn_device(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """k nearest other rows of each row of finite, contiguous float32 `x` (n, d), as in `knn`.

    Returns squared distances float32 (n, k) and indices int64 (n, k) on the device of `x`.
    """
    n, d = x.shape
    z, bias, offset, slack = prepare(x, "tf32")
    n_kept = min(k + SPARE["tf32"], n - 1)
    squared, indices = torch.empty(n, k, device=x.device), torch.empty(n, k, dtype=torch.int64, device=x.device)
    settled = torch.empty(n, dtype=torch.bool, device=x.device)
    # a row: its scores and what topk sorts of them; float32 and float64 features of its candidates
    block = max(1, int(BLOCK_BYTES / (8 * n + 12 * n_kept * d)))
    for start in range(0, n, block):
        part = slice(start, start + block)
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.addmm(bias, z[part], z.T, alpha=-2)  # (b, n)
        scores.diagonal(start).fill_(torch.inf)  # the rows themselves
        scores, kept = scores.topk(n_kept, largest=False)
        kept = kept.sort(1).values  # the sort by distance is stable, so ties keep the order of the index
        difference = x[kept].double().sub_(x[part, None])  # (b, kept, d)
        exact, order = difference.square_().sum(2).float().sort(dim=1, stable=True)
        squared[part], indices[part] = exact[:, :k], kept.gather(1, order[:, :k])
        reach = (exact[:, k - 1].double() * (1 + 4 * UNIT)).sqrt() + slack[part]
        settled[part] = scores[:, -1].double() + offset[part] > reach**2 * (1 + 1e-12)
    pending = (~settled).nonzero().ravel()
    if n_kept < n - 1 and len(pending):
        found = knn_cpu(x.cpu().numpy(), k, rows=pending.cpu().numpy())
        squared[pending], indices[pending] = (torch.from_numpy(array).to(x.device) for array in found)
    return squared, indices
