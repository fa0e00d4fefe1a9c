"""
Text as sparse tf-idf
=====================

Documents become sparse rows of tf-idf, which are made dense only batch by batch. The documents
here come with every installation: the docstrings of scipy's public functions, and the part of
scipy that each stands in is used for scoring only. The last picture names every cluster by the
words that separate it from the rest.
"""

import importlib
import inspect
import re

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from skaecm import DeepAEClustering
from skaecm.inspection import rank_features
from skaecm.metrics import clustering_accuracy

texts, parts = [], []
for part in ("stats", "signal", "linalg", "ndimage", "optimize", "interpolate", "fft"):
    module = importlib.import_module(f"scipy.{part}")
    for name in sorted(module.__all__):
        text = inspect.getdoc(getattr(module, name)) or ""
        if callable(getattr(module, name)) and len(text) > 300:
            texts.append(re.split(r"\n(?:Examples|References)\n", text)[0])
            parts.append(part)

vectorizer = TfidfVectorizer(
    sublinear_tf=True,
    min_df=5,
    max_df=0.3,
    stop_words="english",
    token_pattern="[a-z]{3,}",
    dtype=np.float32,
)
X = vectorizer.fit_transform(texts)
print(f"{X.shape[0]} documents, {X.shape[1]} words, {X.nnz / np.prod(X.shape):.1%} not zero")

# %%
# A column of tf-idf already has the weight it should have, so the rows are not scaled.

k = 8
model = DeepAEClustering(k=k, hidden_layer_sizes=(256, 256), random_state=0).fit(X)
kmeans = KMeans(k, n_init=10, random_state=0).fit(X)
print(f"KMeans            {clustering_accuracy(parts, kmeans.labels_):.3f}")
print(f"DeepAEClustering  {clustering_accuracy(parts, model.labels_):.3f}")

# %%
# The words that separate each cluster from the rest, and where its documents come from.

words = vectorizer.get_feature_names_out()
result = rank_features(model, X)
figure, panels = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
for cluster, panel in enumerate(panels.flat):
    top = result.ranking[cluster, :8][::-1]
    panel.barh(words[top], result.importances[cluster, top], color=f"C{cluster}")
    own = np.array(parts)[model.labels_ == cluster]
    names, counts = np.unique(own, return_counts=True)
    order = np.argsort(-counts)[:2]
    panel.set_title(", ".join(f"{counts[i]} {names[i]}" for i in order), fontsize=10)
    panel.set_xticks([])
    panel.spines[["top", "right", "bottom"]].set_visible(False)
plt.show()
