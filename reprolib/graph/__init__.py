"""k-NN digraphs, initial clusters and the agglomerative linkages built on them (papers 002, [62]-[64])."""
