"""
A grid over the loss weights, without labels
============================================

One pretrained autoencoder serves every setting of the grid, and ``score``, the log-likelihood of
rows that were held out, needs no labels. The picture shows it with its spread over the folds: here
no setting is better than the others by much more than that.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skaecm import DeepAEClustering

X = load_digits().data.astype("float32")
start = DeepAEClustering(k=10, hidden_layer_sizes=(100,), max_iter=0, random_state=0).fit(X)

# %%
# ``init=start.autoencoder_`` skips the pretraining. The autoencoder has seen all rows, as a
# preprocessing step might; the clustering of every fold is learned on its own rows.

search = GridSearchCV(
    DeepAEClustering(k=10, init=start.autoencoder_, batch_size=256, random_state=0),
    {"beta": [0.03, 0.1, 0.3], "alpha": [0.01, 0.05]},
    cv=2,
).fit(X)
results = pd.DataFrame(search.cv_results_)
print(results[["param_alpha", "param_beta", "mean_test_score", "std_test_score"]])

# %%
# The score is a log-likelihood in nats of the space of X, whatever the weights were.

figure, axes = plt.subplots(figsize=(5, 3.5))
for alpha, rows in results.groupby("param_alpha"):
    axes.errorbar(
        rows["param_beta"].astype(str),
        rows["mean_test_score"],
        rows["std_test_score"],
        label=f"alpha={alpha}",
        capsize=3,
    )
axes.set_xlabel("beta")
axes.set_ylabel("held-out score (nats)")
axes.legend()
figure.tight_layout()
plt.show()
