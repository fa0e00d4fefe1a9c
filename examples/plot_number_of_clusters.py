"""
An unknown number of clusters
=============================

Nobody says here how many clusters there are. ``k="auto"`` counts them, and a search over k shows
how clear the answer is: by the information criterion ``bic`` where clusters are round, and by the
stability of the labels anywhere.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits, make_blobs

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.plotting import KSearchDisplay
from skaecm.selection import KSearch

X, _ = make_blobs(2000, centers=7, n_features=5, cluster_std=1.5, random_state=1)
model = ClusteringModuleGMM("auto", random_state=0).fit(X)
search = KSearch(model, range(2, 13), criterion="bic").fit(X)
KSearchDisplay.from_estimator(search)
print(f"seven blobs: {model.n_clusters_} are counted, the lowest BIC is at k = {search.best_k_}")

# %%
# The digits are not that clear: some are written in two ways, and some look alike. Here their
# clusters are counted among the pixels. Of the deep estimator, two fits to one half of the
# rows each are compared for every k; one pretraining a half serves all k.

X = load_digits().data.astype("float32")
model = ClusteringModuleGMM("auto", random_state=0).fit(X)
print(f"digits: {model.n_clusters_} clusters are counted")
deep = DeepAEClustering(hidden_layer_sizes=(64,), batch_size=256, random_state=0)
search = KSearch(deep, [6, 8, 10, 12, 14, 16], criterion="stability", random_state=0).fit(X)
KSearchDisplay.from_estimator(search)
print(f"digits: the stability takes k = {search.best_k_}")
plt.show()
