"""Make assignment.npz: k-means on MNIST-test, the stored assignments that evaluation.md scores.

With MNIST in the data root, run: python book/foundations/make_assignment.py
Under a minute on one CPU core. The same versions on the same machine give the same bytes.
"""

import json
from pathlib import Path

import numpy as np
import sklearn
from sklearn.cluster import KMeans

from reprolib.data.images import as_features
from reprolib.data.load import load
from reprolib.files import write_atomically

SEEDS = range(10)
ITERATIONS = range(1, 31)
OUT = Path(__file__).with_name("assignment.npz")


def main() -> None:
    """Cluster the L2-normalised pixels for every seed, by iterations, and with 30 clusters."""
    images = load("mnist-test")
    features = as_features(images)
    features /= np.linalg.norm(features, axis=1, keepdims=True)

    def k_means(n_clusters: int, seed: int, iterations: int = 300) -> np.ndarray:
        settings = {"init": "random", "n_init": 1, "tol": 0.0}
        model = KMeans(n_clusters, random_state=seed, max_iter=iterations, **settings)
        return model.fit_predict(features).astype(np.uint8)  # (n,)

    provenance = {
        "made_by": "book/foundations/make_assignment.py",
        "method": "k-means, Lloyd, random centres, 1 start, on L2-normalised raw pixels",
        "dataset": {"name": images.name, "n": images.n, "sha256": images.sha256},
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "seeds": list(SEEDS),
        "iterations": list(ITERATIONS),
    }
    arrays = {
        "y": images.labels.astype(np.uint8),  # (n,)
        "seeds": np.stack([k_means(10, seed) for seed in SEEDS]),  # (10, n)
        "iterations": np.stack([k_means(10, 0, t) for t in ITERATIONS]),  # (30, n)
        "thirty": k_means(30, 0),  # (n,)
        "provenance": np.array(json.dumps(provenance)),
    }
    write_atomically(OUT, lambda stream: np.savez_compressed(stream, **arrays))


if __name__ == "__main__":
    main()
