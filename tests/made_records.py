"""Records made for the tests of tables and claims: three seeds of a main run, worse ones, a baseline."""

import numpy as np

from reprolib.data import load
from reprolib.experiments import paper, records

# a record that names no behaviour is never stale
CODE = {"commit": None, "dirty": None, "behaviours": {}}
NAMES = {"digits": "Digits", "usps": "USPS"}
# NMI of each seed is 1 minus about twice this share of random labels
NOISE = {"main": (0.10, 0.11, 0.12), "worse": (0.3, 0.31), "single": (0.2,)}


def write_runs(root):
    """Write three seeds of `main`, two of `worse`, one of `single`; a baseline, also as smoke; on digits."""
    images = load.load("digits")
    rng = np.random.default_rng(0)

    def noisy(share):
        labels = images.labels.copy()
        hit = rng.random(images.n) < share
        labels[hit] = rng.integers(0, 10, hit.sum())
        return labels

    settings = paper.resolve("jule", "digits", "cpu")
    common = dict(paper="jule", images=images, dataset="digits", code=CODE, root=root)
    for tag, shares in NOISE.items():
        for seed, share in enumerate(shares):
            changed = {} if tag == "main" else {"local_weight": 0.0, "unrolling_rate": 0.5}
            records.record(
                **common,
                method="JULE",
                profile="cpu",
                tag=tag,
                random_state=seed,
                parameters=settings | changed,
                assignments={"SF": noisy(share), "RC": noisy(share / 2)},
                history=[{"period": p, "n_clusters": c} for p, c in enumerate((30, 17, 10))],
                seconds={"fit": 60.0 * (1 + seed)},
            )
    for profile, share in (("cpu", 0.5), ("smoke", 0.1)):
        records.record(
            **common,
            method="KMeans",
            profile=profile,
            random_state=0,
            parameters={"n_clusters": 10},
            assignments={"labels": noisy(share)},
            seconds={"fit": 3.0},
        )


def cell(row, dataset, **changed):
    empty = dict(mean=None, std=None, n_seeds=0, stale=None, profile=None, devices=None)
    printed = dict(paper=0.9, reported=None, range=None, spread=None)
    return {"row": row, "dataset": dataset} | printed | empty | changed
