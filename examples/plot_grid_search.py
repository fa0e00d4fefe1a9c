"""
A grid over the loss weights, without labels
============================================

One pretrained autoencoder serves every setting of the grid, and ``score``, the modularity of the
clusters among nearest rows, needs no labels. Here the labels are known, so that the choice can be
looked at: the score of every setting beside its accuracy.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV

from skaecm import DeepAEClustering
from skaecm.metrics import clustering_accuracy

digits = load_digits()
X = digits.data.astype("float32")
start = DeepAEClustering(k=10, hidden_layer_sizes=(100,), max_iter=0, random_state=0).fit(X)

# %%
# ``init=start.autoencoder_`` skips the pretraining. The autoencoder has seen all rows, as a
# preprocessing step might; the clustering of every fold is learned on its own rows. Labels are
# given to ``fit`` for the accuracy alone; the choice is made by the score.


def score(model, X, y=None):
    """The score of the estimator, which is what a search maximises by default."""
    return model.score(X)


search = GridSearchCV(
    DeepAEClustering(k=10, init=start.autoencoder_, batch_size=256, random_state=0),
    {"beta": [0.01, 0.1, 1.0], "alpha": [0.005, 0.05, 0.5]},
    scoring={"score": score, "accuracy": make_scorer(clustering_accuracy)},
    refit="score",
    cv=2,
).fit(X, digits.target)
print(search.best_params_)

# %%
# Settings with a higher score are mostly those with a higher accuracy, which no unlabelled data
# would show.

results = search.cv_results_
figure, axes = plt.subplots(figsize=(5, 3.5))
for alpha in np.unique(results["param_alpha"].astype(float)):
    rows = results["param_alpha"].astype(float) == alpha
    axes.scatter(
        results["mean_test_score"][rows],
        results["mean_test_accuracy"][rows],
        label=f"alpha={alpha:g}",
    )
axes.set_xlabel("held-out score")
axes.set_ylabel("held-out accuracy")
axes.legend()
figure.tight_layout()
plt.show()
