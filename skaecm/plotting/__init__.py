"""Pictures of a fit, as displays in the way of scikit-learn. They need matplotlib."""

from ._centers import ClusterCentersDisplay
from ._embedding import EmbeddingDisplay
from ._fits import KSearchDisplay, LossCurveDisplay
from ._labels import ClusterConfusionDisplay, ClusterSizesDisplay, ResponsibilitiesDisplay

__all__ = [
    "ClusterCentersDisplay",
    "ClusterConfusionDisplay",
    "ClusterSizesDisplay",
    "EmbeddingDisplay",
    "KSearchDisplay",
    "LossCurveDisplay",
    "ResponsibilitiesDisplay",
]
