"""A fitted estimator as a model in the ONNX format, for programs without Python."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import final

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from ._base import BaseModuleClusterer
from ._extras import need
from ._files import write_whole
from ._modules import ClusteringNetwork, DeepNetwork

OUTPUTS = {"predict_proba": ["label", "probabilities"], "transform": ["transformed"]}

# The first torch whose exporter knows what is asked of it below.
FIRST_TORCH = "2.5"

# Understood by onnxruntime 1.14 and later.
OPSET = 18

# What speaks while a model is exported, below the level of an error.
LOGGERS = ("torch", "onnxscript", "onnx_ir")


@final
class Answer(nn.Module):
    """What an estimator answers, as a function of rows alone."""

    def __init__(self, network: ClusteringNetwork, method: str):
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        if self.method == "transform" and isinstance(self.network, DeepNetwork):
            return (self.network.embed(X),)
        proba = self.network.proba(X)
        return (proba,) if self.method == "transform" else (proba.argmax(dim=1), proba)


@final
class Leaky(nn.Module):
    """LeakyReLU of operations that onnxruntime has in float64 too."""

    slope: Tensor

    def __init__(self, layer: nn.LeakyReLU):
        super().__init__()
        # As a plain number it would be written in float32.
        self.register_buffer("slope", torch.tensor(layer.negative_slope, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


@final
class Unfolded(nn.Module):
    """A convolution as a matrix product, which onnxruntime has in float64 too."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        assert not isinstance(layer.padding, str)
        sizes = [
            (
                x.shape[2 + i]
                + 2 * layer.padding[i]
                - layer.dilation[i] * (layer.kernel_size[i] - 1)
                - 1
            )
            // layer.stride[i]
            + 1
            for i in range(2)
        ]
        patches = nn.functional.unfold(
            x, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        columns = layer.weight.flatten(1) @ patches
        if layer.bias is not None:
            columns = columns + layer.bias[:, None]
        return columns.unflatten(2, sizes)


def export_onnx(estimator, path, method="predict_proba"):
    """Write what a fitted estimator answers as a model in the ONNX format.

    The model holds all of it: from rows in the user's units, over standardizer and
    networks, to the labels. It takes any number of rows, one included.

    Parameters
    ----------
    estimator : ClusteringModuleGMM or DeepAEClustering
        The fitted estimator.
    path : str or path-like
        The file. An old one is replaced, at once and only when the new one is
        complete.
    method : {"predict_proba", "transform"}, default="predict_proba"
        What the model answers.

        - "predict_proba": "label" of shape (n,), int64, and "probabilities" of
          shape (n, k).
        - "transform": "transformed" of shape (n, n_features_out).

    Raises
    ------
    TypeError
        If the estimator is of another class.
    ValueError
        If `method` is another, or the network cannot be written in ONNX, which
        happens to custom autoencoders only.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    OSError
        If the file cannot be written. An old one is then as it was.
    ImportError
        If onnx or onnxscript is not installed (``pip install "skaecm[onnx]"``), or torch
        is older than 2.5.

    See Also
    --------
    save : Write an estimator to be read by `load`.

    Notes
    -----
    The input is called "X" and is of shape (n, n_features), in float32 after a fit of
    float32 or uint8 rows, else in float64. onnxruntime lacks LeakyReLU and convolutions
    in float64, so there they are written in simpler operations. Other layers of a
    custom autoencoder are written as they are; if onnxruntime lacks one of them,
    fit float32 rows.

    Neighbours given as `adjacency` are not part of a model: it takes every row by itself.

    Examples
    --------
    >>> import tempfile
    >>> import onnxruntime
    >>> from sklearn.datasets import load_iris
    >>> import skaecm
    >>> X = load_iris().data
    >>> model = skaecm.ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skaecm.export_onnx(model, folder + "/iris.onnx")
    ...     session = onnxruntime.InferenceSession(folder + "/iris.onnx")
    >>> label, probabilities = session.run(None, {"X": X})
    >>> bool((label == model.labels_).all())
    True
    """
    if not isinstance(estimator, BaseModuleClusterer):
        raise TypeError(
            "skaecm.export_onnx takes a fitted ClusteringModuleGMM or DeepAEClustering, but got a "
            f"{type(estimator).__name__}."
        )
    if method not in OUTPUTS:
        raise ValueError(
            f"method must be one of {', '.join(map(repr, OUTPUTS))}, but is {method!r}."
        )
    check_is_fitted(estimator)
    network = copy.deepcopy(estimator.module_)
    if network.dtype == torch.float64:
        simplify(network)
    rows = torch.zeros(2, estimator.n_features_in_, dtype=network.dtype)
    write_whole(path, exported(Answer(network, method).eval(), rows, OUTPUTS[method]))


def simplify(module: nn.Module) -> None:
    """Put simpler operations in the place of layers that onnxruntime lacks in float64."""
    for name, layer in module.named_children():
        if type(layer) is nn.LeakyReLU:
            setattr(module, name, Leaky(layer))
        elif (
            type(layer) is nn.Conv2d
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        ):
            setattr(module, name, Unfolded(layer))
        else:
            simplify(layer)


def exported(answer: Answer, rows: Tensor, outputs: list[str]) -> bytes:
    """A function of any number of rows, traced on these, as an ONNX model."""
    if TorchVersion(torch.__version__) < FIRST_TORCH:
        raise ImportError(
            f"skaecm.export_onnx needs torch {FIRST_TORCH} or later, but this is torch "
            f"{torch.__version__}. Upgrade torch; all else in skaecm works as it is."
        )
    onnx = need("onnx", "onnx", "skaecm.export_onnx")
    need("onnxscript", "onnx", "skaecm.export_onnx")
    try:
        with quiet():
            program = torch.onnx.export(
                answer,
                (rows,),
                dynamo=True,
                verbose=False,
                input_names=["X"],
                output_names=outputs,
                opset_version=OPSET,
                dynamic_shapes={"X": {0: torch.export.Dim("n")}},
            )
            assert program is not None
            model = program.model_proto
            onnx.checker.check_model(model)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0]
        raise ValueError(
            "The network of this estimator cannot be written in ONNX. A custom autoencoder must "
            "consist of operations that torch.onnx.export knows, and take any number of rows. "
            f"The reason: {reason}"
        ) from error
    forget_origin(model.graph)
    return model.SerializeToString()


def forget_origin(graph) -> None:
    """Remove where in whose folders the operations came from."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that the exporter prints or warns of, and no messages below an error."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        unheard = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(unheard), redirect_stderr(unheard):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
