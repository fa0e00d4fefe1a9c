"""
A pipeline on a mixed table
===========================

Numbers on different scales, missing values and categories go through a ``ColumnTransformer``,
and the clustering is the last step of the pipeline. The table is generated: four kinds of
customers, whose kind is used for scoring only. The picture shows what each cluster stands for,
in the units of the table.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skaecm import ClusteringModuleGMM
from skaecm.metrics import clustering_accuracy

rng = np.random.default_rng(0)
kinds = pd.DataFrame(
    {
        "age": [24, 38, 47, 68],
        "income": [21e3, 44e3, 95e3, 30e3],
        "visits": [14, 5, 2, 7],
        "basket": [9, 70, 140, 25],
        "channel": ["phone", "web", "web", "shop"],
        "plan": ["free", "family", "gold", "free"],
    },
    index=["students", "families", "professionals", "pensioners"],
)
kind = rng.integers(4, size=2000)
table = kinds.iloc[kind].reset_index(drop=True)
table["age"] += rng.normal(0, 6, size=2000)
table["income"] *= rng.lognormal(0, 0.4, size=2000)
table["visits"] = rng.poisson(table["visits"]).astype(float)
table["basket"] *= rng.lognormal(0, 0.5, size=2000)
for column in ("channel", "plan"):
    anyone = rng.random(2000) < 0.3
    table.loc[anyone, column] = rng.choice(kinds[column].unique(), size=anyone.sum())
table = table.mask(rng.random(table.shape) < 0.03)
table.head()

# %%
# Money is compared in ratios, so its logarithm is taken. All numbers then have variance one.
# Ten columns hold little that an embedding could bring out: the module alone will do.

money = make_pipeline(SimpleImputer(), FunctionTransformer(np.log), StandardScaler())
number = make_pipeline(SimpleImputer(), StandardScaler())
category = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
preparation = ColumnTransformer(
    [
        ("money", money, ["income", "basket"]),
        ("number", number, ["age", "visits"]),
        ("category", category, ["channel", "plan"]),
    ],
    sparse_threshold=0,
)
model = make_pipeline(preparation, ClusteringModuleGMM(k=4, random_state=0)).fit(table)
labels = model.predict(table)
print(f"accuracy {clustering_accuracy(kind, labels):.3f}")

# %%
# A new customer goes the same way as the rows of the fit.

customer = pd.DataFrame(
    {
        "age": [66],
        "income": [28e3],
        "visits": [np.nan],
        "basket": [31],
        "channel": ["shop"],
        "plan": ["free"],
    }
)
print(model.predict_proba(customer).round(3))

# %%
# What the clusters stand for: medians of the numbers, shares of the categories. The colour
# compares a cluster with the others in the same line.

wide = pd.get_dummies(table, columns=["channel", "plan"], prefix_sep=": ")
is_number = wide.columns.isin(["age", "income", "visits", "basket"])
profile = wide.groupby(labels).agg(
    {name: "median" if plain else "mean" for name, plain in zip(wide, is_number, strict=True)}
)
colour = (profile - profile.mean()) / profile.std()
sizes = np.bincount(labels)
figure, axes = plt.subplots(figsize=(6.5, 5), layout="constrained")
axes.imshow(colour.T, cmap="PuOr", vmin=-2, vmax=2, aspect="auto")
for row, (name, plain) in enumerate(zip(wide, is_number, strict=True)):
    for cluster in range(4):
        value = profile.loc[cluster, name]
        shade = "white" if abs(colour.loc[cluster, name]) > 1.2 else "black"
        text = f"{value:,.0f}" if plain else f"{value:.0%}"
        axes.text(cluster, row, text, ha="center", va="center", color=shade)
axes.set_xticks(range(4), [f"cluster {j}\n{sizes[j]} rows" for j in range(4)])
axes.set_yticks(range(len(wide.columns)), wide.columns)
axes.tick_params(length=0)
axes.spines[:].set_visible(False)
plt.show()
