"""
Rows that belong together
=========================

A transformed copy of an image belongs to its cluster, and so, mostly, do the images
nearest to it. Saying so without labels is what helps most.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skaecm import DeepAEClustering
from skaecm.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
X = X.astype("float32")
common = {"k": 10, "hidden_layer_sizes": (256, 256), "random_state": 0}
models = {
    "no partners": DeepAEClustering(**common),
    "neighbours": DeepAEClustering(**common, n_neighbors=10),
    "neighbours and copies": DeepAEClustering(
        **common, n_neighbors=10, augment="image", image_shape=(8, 8)
    ),
}
for name, model in models.items():
    model.fit(X)
    print(f"{name}: accuracy {clustering_accuracy(y, model.labels_):.3f}")

# %%
# The embeddings, coloured by cluster.

figure, panels = plt.subplots(1, 3, figsize=(12, 4))
for panel, (name, model) in zip(panels, models.items(), strict=True):
    plane = PCA(2).fit_transform(model.transform(X))
    panel.scatter(*plane.T, c=model.labels_, cmap="tab10", s=4)
    panel.set_title(name)
    panel.set_axis_off()

# %%
# A graph that comes with the rows
# --------------------------------
#
# Two thousand rows of four groups, too noisy to tell apart by their features, each
# linked to five others, of which most are of its group.

rng = np.random.default_rng(0)
group = rng.integers(4, size=2000)
features = rng.normal(size=(4, 16))[group] + 2.0 * rng.normal(size=(2000, 16))
links = rng.integers(2000, size=(2000, 5))
for column in range(4):
    links[:, column] = [rng.choice(np.flatnonzero(group == own)) for own in group]
adjacency = np.zeros((2000, 2000))
np.put_along_axis(adjacency, links, 1.0, axis=1)

common = {"k": 4, "hidden_layer_sizes": (64,), "random_state": 0}
alone = DeepAEClustering(**common).fit(features)
both = DeepAEClustering(**common).fit(features, adjacency=adjacency)
print(f"features alone: accuracy {clustering_accuracy(group, alone.labels_):.3f}")
print(f"with the graph: accuracy {clustering_accuracy(group, both.labels_):.3f}")

figure, panels = plt.subplots(1, 2, figsize=(8, 4))
for panel, model, name in zip(
    panels, (alone, both), ("features alone", "with the graph"), strict=True
):
    graph = None if model is alone else adjacency
    plane = PCA(2).fit_transform(model.transform(features, adjacency=graph))
    panel.scatter(*plane.T, c=group, cmap="tab10", s=4)
    panel.set_title(name)
    panel.set_axis_off()
plt.show()
