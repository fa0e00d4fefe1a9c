"""Joint clustering and embedding with the estimator interface of scikit-learn."""

from ._checkpoint import Checkpoint
from ._clustering_module import ClusteringModuleGMM
from ._deep_clustering import DeepAEClustering
from ._onnx import export_onnx
from ._persistence import load, save
from ._version import __version__

__all__ = [
    "Checkpoint",
    "ClusteringModuleGMM",
    "DeepAEClustering",
    "__version__",
    "export_onnx",
    "load",
    "save",
]
