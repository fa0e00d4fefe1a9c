"""
Uncertain rows and outliers
===========================

Two questions to a fit are easily mixed up: ``assignment_entropy`` finds rows that lie between
clusters, ``score_samples`` rows that are unlike all of them. Both are asked here of digits that
the fit has not seen, and of thirty strangers among them. The pictures show the answers, and the
rows behind them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from skaecm import DeepAEClustering
from skaecm.inspection import assignment_entropy
from skaecm.plotting import ResponsibilitiesDisplay

digits = load_digits().data.astype("float32")
rng = np.random.default_rng(0)
# A stranger has the lower half of one digit above the upper half of another.
upper, lower = rng.choice(digits, size=(2, 30))
strangers = np.hstack([lower[:, 32:], upper[:, :32]])
X = np.vstack([digits[1000:], strangers])
is_stranger = np.arange(len(X)) >= 797

model = DeepAEClustering(k=10, hidden_layer_sizes=(256, 256), random_state=0).fit(digits[:1000])
score = model.score_samples(X)
entropy = assignment_entropy(model, X)
print(f"strangers by a low score:    AUC {roc_auc_score(is_stranger, -score):.3f}")
print(f"strangers by a high entropy: AUC {roc_auc_score(is_stranger, entropy):.3f}")

# %%
# Training makes the rows of the fit certain, so that their entropy says little. It is to be
# asked of new rows.

seen = assignment_entropy(model, digits[:1000])
print(f"99th percentile of the entropy, rows of the fit: {np.quantile(seen, 0.99):.3f} nats")
print(f"99th percentile of the entropy, new rows:        {np.quantile(entropy, 0.99):.3f} nats")

# %%
# Every new row once. Outliers lie to the left, uncertain rows at the top.

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
kinds = [("digits", ~is_stranger, "#0072B2", "o"), ("strangers", is_stranger, "#D55E00", "^")]
for name, rows, colour, marker in kinds:
    axes.scatter(score[rows], entropy[rows], s=18, color=colour, marker=marker, label=name)
axes.axhline(np.log(2), color="grey", linewidth=0.8, linestyle="--", zorder=0)
axes.text(axes.get_xlim()[1], np.log(2), "two equal clusters ", ha="right", va="bottom")
axes.set_xlabel("score_samples (nats)")
axes.set_ylabel("assignment_entropy (nats)")
axes.legend()

# %%
# The rows of the highest entropy, with the shares of their two likeliest clusters, and those of
# the lowest score. Strangers have a frame.

shares = np.sort(model.predict_proba(X), axis=1)[:, ::-1]
lines = {"most uncertain": np.argsort(-entropy)[:12], "least likely": np.argsort(score)[:12]}
figure, panels = plt.subplots(2, 12, figsize=(12, 2.8), layout="constrained")
for row, (name, chosen) in zip(panels, lines.items(), strict=True):
    for panel, i in zip(row, chosen, strict=True):
        panel.imshow(X[i].reshape(8, 8), cmap="gray_r")
        panel.set_title(f"{shares[i, 0]:.0%} | {shares[i, 1]:.0%}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_color("#D55E00" if is_stranger[i] else "none")
        panel.spines[:].set_linewidth(2)
    row[0].set_ylabel(name)

# %%
# Between which clusters the uncertain ones lie.

ResponsibilitiesDisplay.from_estimator(model, X[lines["most uncertain"]])
plt.show()
