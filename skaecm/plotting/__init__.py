"""Pictures of a fit, as displays in the way of scikit-learn. They need matplotlib."""

from ._centers import ClusterCentersDisplay
from ._embedding import EmbeddingDisplay
from ._fits import LossCurveDisplay

__all__ = [
    "ClusterCentersDisplay",
    "EmbeddingDisplay",
    "LossCurveDisplay",
]
