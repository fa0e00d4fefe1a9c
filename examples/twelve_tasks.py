"""Twelve common tasks, each in at most five lines."""

import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.inspection import assignment_entropy, rank_features
from skaecm.plotting import EmbeddingDisplay

digits = load_digits().data.astype("float32")
known, new = digits[:600], digits[600:]
iris = load_iris()

# Task 1: cluster rows, and assign new ones to the clusters.
model = DeepAEClustering(k=10, hidden_layer_sizes=(100,), random_state=0)
labels = model.fit_predict(known)
new_labels = model.predict(new)
new_shares = model.predict_proba(new)

# Task 2: look at the embedding.
display = EmbeddingDisplay.from_estimator(model, new)
display.figure_.savefig("embedding.png")

# Task 3: keep a fit, and use it elsewhere.
skaecm.save(model, "digits.skaecm")
restored = skaecm.load("digits.skaecm")
same = restored.predict(new)

# Task 4: scale the columns of a table first.
pipeline = make_pipeline(StandardScaler(), ClusteringModuleGMM(k=3, random_state=0))
kinds = pipeline.fit_predict(iris.data)

# Task 5: find out how many clusters there are.
criterion = {}
for k in range(1, 7):
    criterion[k] = ClusteringModuleGMM(k, random_state=0).fit(iris.data).bic(iris.data)
best_k = min(criterion, key=criterion.get)

# Task 6: choose the weights of the loss without labels, with one pretraining for all.
start = DeepAEClustering(k=10, hidden_layer_sizes=(100,), max_iter=0, random_state=0).fit(known)
deep = DeepAEClustering(k=10, init=start.autoencoder_, random_state=0)
search = GridSearchCV(deep, {"beta": [0.03, 0.3]}, cv=2).fit(known)
best_beta = search.best_params_["beta"]

# Task 7: say that a shifted or rotated image shows the same thing.
images = DeepAEClustering(
    k=10, augment="image", image_shape=(8, 8), hidden_layer_sizes=(100,), random_state=0
)
images.fit(known)

# Task 8: cluster rows that a graph links.
graph = kneighbors_graph(known, 5)
linked = DeepAEClustering(k=10, hidden_layer_sizes=(100,), pretrain_iter=20, random_state=0)
linked.fit(known, adjacency=graph)

# Task 9: find the outliers, and the rows between two clusters.
outliers = np.argsort(model.score_samples(new))[:10]
uncertain = np.argsort(assignment_entropy(model, new))[-10:]

# Task 10: cluster texts.
texts = TfidfVectorizer(max_features=500).fit_transform(iris.DESCR.splitlines())
topics = ClusteringModuleGMM(k=4, random_state=0).fit_predict(texts)

# Task 11: watch a fit, and stop it when it is good enough.
watched = DeepAEClustering(k=10, hidden_layer_sizes=(100,), random_state=0)
watched.set_params(callback=lambda row: row.get("changed", 1.0) < 0.005)
history = watched.fit(known).history_

# Task 12: explain what makes the clusters.
iris_model = ClusteringModuleGMM(k=3, random_state=0).fit(iris.data)
ranking = rank_features(iris_model, iris.data).ranking
first = [iris.feature_names[j] for j in ranking[:, 0]]
