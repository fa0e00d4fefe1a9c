"""
Side by side with GaussianMixture
=================================

``ClusteringModuleGMM`` has the attributes and methods of ``GaussianMixture``, so that either can
stand where the other stood. On separated clusters both find the same; where clusters touch, the
module draws the borders of k-means, while EM keeps responsibilities soft. And what EM has found
can be the start of the module, exactly.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from skaecm import ClusteringModuleGMM

centers = [[-4, 0], [4, 0], [0, 6]]
data = {
    "separated": make_blobs(900, centers=centers, cluster_std=1.0, random_state=0)[0],
    "touching": make_blobs(900, centers=centers, cluster_std=2.4, random_state=0)[0],
}
models = {
    "GaussianMixture": lambda: GaussianMixture(3, covariance_type="spherical", random_state=0),
    "ClusteringModuleGMM": lambda: ClusteringModuleGMM(3, random_state=0),
}


def draw(panel, model, X):
    """Rows over the responsibilities, the clusters numbered from left to right."""
    order = np.argsort(model.means_[:, 0])
    colours = np.array([to_rgb(name) for name in ("#0072B2", "#E69F00", "#009E73")])
    x, y = np.meshgrid(np.linspace(-10, 10, 200), np.linspace(-7, 13, 200))
    shares = model.predict_proba(np.column_stack([x.ravel(), y.ravel()]))[:, order]
    panel.imshow(
        (shares @ colours).reshape(*x.shape, 3),
        extent=(-10, 10, -7, 13),
        origin="lower",
        alpha=0.45,
    )
    panel.scatter(*X.T, s=3, color="black", alpha=0.5, linewidth=0)
    panel.plot(*model.means_.T, "w*", markersize=13, markeredgecolor="black")
    panel.set(xlim=(-10, 10), ylim=(-7, 13))
    panel.set_axis_off()


figure, panels = plt.subplots(2, 2, figsize=(8, 8.4), layout="constrained")
for row, (name, X) in zip(panels, data.items(), strict=True):
    labels = []
    for panel, (kind, make) in zip(row, models.items(), strict=True):
        model = make().fit(X)
        labels.append(model.predict(X))
        draw(panel, model, X)
        panel.set_title(f"{kind}\n{name}: {model.score(X):.3f} nats a row")
    print(f"{name}: adjusted Rand index of the two {adjusted_rand_score(*labels):.3f}")

# %%
# From one to the other
# ---------------------
#
# A tied covariance gives responsibilities that the module can hold exactly: with no epochs of
# training it is the mixture. Trained from there it lowers its own loss, the distortion.

X = data["touching"] @ np.array([[0.9, 0.5], [0.0, 0.6]]) + [0, 2]
mixture = GaussianMixture(3, covariance_type="tied", random_state=0).fit(X)
start = ClusteringModuleGMM(3, init=mixture, max_iter=0).fit(X)
trained = ClusteringModuleGMM(3, init=mixture, random_state=0).fit(X)
difference = np.abs(start.predict_proba(X) - mixture.predict_proba(X)).max()
print(f"largest difference of the responsibilities {difference:.0e}")
figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
titles = ("GaussianMixture, tied", "the module at that start", "the module trained from there")
for panel, model, title in zip(panels, (mixture, start, trained), titles, strict=True):
    draw(panel, model, X)
    panel.set_title(title)
plt.show()
