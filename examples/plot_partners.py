"""
Rows that belong together
=========================

A transformed copy of an image belongs to its cluster, and so, mostly, do the images nearest to it.
Saying so without labels is what helps most. The pictures show the embeddings that follow, first
of the digits, then of rows that a graph links.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skaecm import DeepAEClustering
from skaecm.metrics import clustering_accuracy
from skaecm.plotting import EmbeddingDisplay

X, y = load_digits(return_X_y=True)
X = X.astype("float32")
common = {"k": 10, "hidden_layer_sizes": (128, 128), "batch_size": 128, "random_state": 0}
models = {
    "no partners": DeepAEClustering(**common, n_neighbors=None),
    "neighbours": DeepAEClustering(**common, n_neighbors=10),
    "neighbours and copies": DeepAEClustering(
        **common, n_neighbors=10, augment="image", image_shape=(8, 8)
    ),
}
for name, model in models.items():
    model.fit(X)
    print(f"{name}: accuracy {clustering_accuracy(y, model.labels_):.3f}")

# %%
# The embeddings in two principal components, coloured by digit: with partners, rows of a kind lie
# together.

figure, panels = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for panel, (name, model) in zip(panels, models.items(), strict=True):
    EmbeddingDisplay.from_predictions(model.transform(X), y, ax=panel)
    panel.set_title(name)
    panel.set_axis_off()

# %%
# A graph that comes with the rows
# --------------------------------
#
# A thousand rows of four groups, too noisy to tell apart by their features, each
# linked to five others, of which most are of its group.

rng = np.random.default_rng(0)
group = rng.integers(4, size=1000)
features = rng.normal(size=(4, 16))[group] + 2.0 * rng.normal(size=(1000, 16))
links = rng.integers(1000, size=(1000, 5))
for column in range(4):
    links[:, column] = [rng.choice(np.flatnonzero(group == own)) for own in group]
adjacency = np.zeros((1000, 1000))
np.put_along_axis(adjacency, links, 1.0, axis=1)

common = {"k": 4, "hidden_layer_sizes": (64,), "random_state": 0}
alone = DeepAEClustering(**common).fit(features)
both = DeepAEClustering(**common).fit(features, adjacency=adjacency)
print(f"features alone: accuracy {clustering_accuracy(group, alone.labels_):.3f}")
print(f"with the graph: accuracy {clustering_accuracy(group, both.labels_):.3f}")

figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for panel, model, graph in zip(panels, (alone, both), (None, adjacency), strict=True):
    EmbeddingDisplay.from_predictions(model.transform(features, adjacency=graph), group, ax=panel)
    panel.set_title("features alone" if graph is None else "with the graph")
    panel.set_axis_off()
plt.show()
