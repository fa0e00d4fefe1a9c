"""
Which features separate a cluster
=================================

``rank_features`` follows the gradients of the responsibilities to the features that tell each
cluster from the rest. For the wines these are names in a table, for the digits pixels. Shown are
the importances, in nats of the log-odds between a cluster and the others.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_wine
from sklearn.preprocessing import StandardScaler

from skaecm import DeepAEClustering
from skaecm.inspection import rank_features

wine = load_wine(as_frame=True)
X = StandardScaler().set_output(transform="pandas").fit_transform(wine.data)
model = DeepAEClustering(k=3, hidden_layer_sizes=(64, 64), random_state=0).fit(X)
result = rank_features(model, X)
for cluster in range(3):
    first = result.feature_names[result.ranking[cluster, :3]]
    print(f"cluster {cluster}: {', '.join(first)}")

# %%
# The wine's kind was never shown to the fit; the counts below the names say how the clusters
# match it.

counts = [np.bincount(wine.target[model.labels_ == cluster], minlength=3) for cluster in range(3)]
order = np.argsort(-result.importances.max(axis=0))
table = result.importances[:, order].T
figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
image = axes.imshow(table, cmap="PuOr", vmin=-table.max(), vmax=table.max(), aspect="auto")
for (row, cluster), value in np.ndenumerate(table):
    shade = "white" if value > 0.6 * table.max() else "black"
    axes.text(cluster, row, f"{value:.1f}", ha="center", va="center", color=shade)
axes.set_xticks(range(3), [f"cluster {j}\nkinds {counts[j]}" for j in range(3)])
axes.set_yticks(range(len(order)), result.feature_names[order])
axes.tick_params(length=0)
axes.set_title("importance (nats)")

# %%
# The decoded centres of the digits, and below them what separates each from the rest. The hole
# of the zero is in the second line, where the first is white.

X = load_digits().data.astype("float32")
model = DeepAEClustering(k=10, hidden_layer_sizes=(256, 256), random_state=0).fit(X)
importances = rank_features(model, X).importances
figure, panels = plt.subplots(2, 10, figsize=(10, 2.3), layout="constrained")
for cluster, (above, below) in enumerate(panels.T):
    above.imshow(model.cluster_centers_[cluster].reshape(8, 8), cmap="gray_r")
    limit = np.abs(importances[cluster]).max()
    below.imshow(importances[cluster].reshape(8, 8), cmap="PuOr", vmin=-limit, vmax=limit)
    above.set_axis_off()
    below.set_axis_off()
plt.show()
