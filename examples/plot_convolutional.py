"""
A convolutional autoencoder
===========================

``autoencoder=`` takes any callable that returns an encoder and a decoder.
``ConvolutionalAutoencoder`` is a ready one for rows that hold images. The pictures show what it
keeps of an image, and where its clusters differ from the digits.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from skaecm import DeepAEClustering
from skaecm.autoencoders import ConvolutionalAutoencoder
from skaecm.metrics import clustering_accuracy
from skaecm.plotting import ClusterConfusionDisplay

X, y = load_digits(return_X_y=True)
X = X.astype("float32")
model = DeepAEClustering(
    k=10,
    autoencoder=ConvolutionalAutoencoder(image_shape=(8, 8), channels=(16, 32)),
    random_state=0,
).fit(X)
print(f"accuracy {clustering_accuracy(y, model.labels_):.3f}")

# %%
# Rows above, their reconstructions below.

decoded = model.inverse_transform(model.transform(X[:10]))
figure, panels = plt.subplots(2, 10, figsize=(10, 2.2))
for column, pair in enumerate(zip(X[:10], decoded, strict=True)):
    for row, image in enumerate(pair):
        panels[row, column].imshow(image.reshape(8, 8), cmap="gray_r")
        panels[row, column].set_axis_off()

# %%
# The digits against the clusters, which are brought into the order that fits best. A digit that
# fills two columns was cut in two, a column that fills two rows holds two digits.

# sphinx_gallery_thumbnail_number = 2
ClusterConfusionDisplay.from_estimator(model, X, y)
plt.show()
