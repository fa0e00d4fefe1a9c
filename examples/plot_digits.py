"""
Clusters and embedding of the digits
====================================

``DeepAEClustering`` learns both at once. Here it clusters scikit-learn's bundled digits
beside ``KMeans``, and the decoded centroids show what each cluster stands for.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from skaecm import DeepAEClustering
from skaecm.metrics import clustering_accuracy

X, y = load_digits(return_X_y=True)
X = X.astype("float32")
model = DeepAEClustering(k=10, random_state=0).fit(X)

# %%
# The labels are used for scoring only.

kmeans = KMeans(10, n_init=10, random_state=0).fit(X)
print(f"KMeans            {clustering_accuracy(y, kmeans.labels_):.3f}")
print(f"DeepAEClustering  {clustering_accuracy(y, model.labels_):.3f}")

# %%
# The centroids are nearly orthonormal, so two principal components would show three clusters
# and pile up the rest. This linear projection puts the centroids on a circle instead.

angles = 2 * np.pi * np.arange(10) / 10
circle = np.column_stack([np.sin(angles), np.cos(angles)])
points = model.transform(X) @ np.linalg.pinv(model.embedding_centers_) @ circle
figure, axes = plt.subplots(figsize=(6, 6))
axes.scatter(*points.T, c=model.labels_, cmap="tab10", s=6)
axes.set_title("Embedding, coloured by cluster")
axes.set_axis_off()

# %%
# The centroids, decoded to the space of the images.

figure, panels = plt.subplots(1, 10, figsize=(10, 1.4))
for panel, center, weight in zip(panels, model.cluster_centers_, model.weights_, strict=True):
    panel.imshow(center.reshape(8, 8), cmap="gray_r")
    panel.set_title(f"{weight:.0%}", fontsize=9)
    panel.set_axis_off()
plt.show()
