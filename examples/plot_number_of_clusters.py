"""
An unknown number of clusters
=============================

Nobody says here how many clusters there are. Where clusters are round, the information criterion
``bic`` has its minimum at their number. On the digits the likelihood only rises and names no
number, but the labels agree less under another seed once ``k`` is too large.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, make_blobs
from sklearn.metrics import adjusted_rand_score

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.plotting import KSearchDisplay

X, _ = make_blobs(2000, centers=7, n_features=5, cluster_std=1.5, random_state=1)
k_values = range(2, 13)
bic = [ClusteringModuleGMM(k, random_state=0).fit(X).bic(X) for k in k_values]
best = k_values[int(np.argmin(bic))]
KSearchDisplay.from_predictions(k_values, {"BIC": bic}, best=best)
print(f"seven blobs: the lowest BIC is at k = {best}")

# %%
# The digits: one pretraining for all, three fits for every k. Agreement is the adjusted Rand
# index of two of them on rows that they have not seen. It is high up to about ten and breaks down
# beyond twelve.

digits = load_digits().data.astype("float32")
seen, new = digits[::2], digits[1::2]
start = DeepAEClustering(k=16, hidden_layer_sizes=(64,), max_iter=0, random_state=0).fit(seen)
k_values = [6, 8, 10, 12, 14, 16]
agreement, score = [], []
for k in k_values:
    models = [
        DeepAEClustering(k, init=start.autoencoder_, batch_size=256, random_state=seed).fit(seen)
        for seed in range(3)
    ]
    labels = [model.predict(new) for model in models]
    agreement.append([adjusted_rand_score(labels[i], labels[i - 1]) for i in range(3)])
    score.append([model.score(new) for model in models])
KSearchDisplay.from_predictions(k_values, {"agreement": agreement, "score (nats)": score})
plt.show()
