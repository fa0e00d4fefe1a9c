"""Keeping a fit: one file of tensors and a JSON document, read without running code.

The file is in the safetensors format. Its tensors are all that has bytes; its header
holds the document (the parameters, what was learned, how the network is built, and
versions) and a checksum over both. Reading knows two estimators, a few layers and a
closed set of values (`_values.py`), and compares every tensor with what it must be.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ._clustering_module import ClusteringModuleGMM
from ._deep_clustering import DeepAEClustering
from ._documents import pack, unpack, verify, versions
from ._extras import need
from ._files import write_whole
from ._modules import DeepNetwork
from ._stored_network import (
    SETTINGS,
    check_history,
    decode_network,
    decode_training,
    encode_network,
    encode_training,
)
from ._tensors import resolve_device
from ._values import NotKept, Reader, Refusal, Writer, describe
from ._version import __version__

# Raised when a file of today could not be read as it was meant by the code of before.
FORMAT = 3

# The name of the document in a file.
MARK = "skaecm"

ESTIMATORS = {cls.__name__: cls for cls in (ClusteringModuleGMM, DeepAEClustering)}

# What a fit learns: the axes of an array, or the type of anything else. An attribute
# that has no place here or below stops `save`, so that none can be forgotten.
LEARNED: dict[type, dict[str, Any]] = {
    ClusteringModuleGMM: {
        "labels_": "n",
        "n_clusters_": Integral,
        "cluster_centers_": "kd",
        "means_": "kd",
        "weights_": "k",
        "covariances_": "k",
        "loss_": Real,
        "history_": list,
        "loss_curve_": list,
        "n_iter_": Integral,
        "converged_": bool,
        "n_features_in_": Integral,
        "_n_features_out": Integral,
    }
}
LEARNED[DeepAEClustering] = LEARNED[ClusteringModuleGMM] | {
    "embedding_centers_": "kp",
    "embedding_covariances_": "k",
    "noise_variance_": Real,
    "n_components_": Integral,
}
KEPT_APART = {
    "module_",
    "autoencoder_",
    "feature_names_in_",
    "_training_state",
    "_sklearn_output_config",
    "_metadata_request",
}
# Callbacks watch a fit and are no part of it; those of scikit-learn are an attribute. A
# `memory` is a folder of pickles: a file that chose it could have the next fit run code.
# Nor may it choose the folder of a `checkpoint`, which a fit writes to.
NOT_KEPT = {"callback", "checkpoint", "memory"}
CALLBACKS = {"_skl_callbacks"}

METHODS = ("fit", "partial_fit", "predict", "predict_proba", "score", "transform")
PARTS = {
    "format",
    "versions",
    "estimator",
    "parameters",
    "learned",
    "network",
    "training",
    "output",
    "requests",
}


def save(estimator, path):
    """Write a fitted estimator to a file.

    The file is in the safetensors format: the weights and arrays as tensors, all
    else as JSON. Nothing in it is code. An old file at `path` is replaced, at once
    and only when the new one is complete.

    Parameters
    ----------
    estimator : ClusteringModuleGMM or DeepAEClustering
        The fitted estimator.
    path : str or path-like
        The file. Its name is taken as it is; ``.skaecm`` is customary.

    Raises
    ------
    TypeError
        If the estimator is of another class, or has attributes that are not its own.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    OSError
        If the file cannot be written. An old one is then as it was.
    ImportError
        If safetensors is not installed (``pip install "skaecm[persistence]"``).

    See Also
    --------
    load : Read the file again.
    export_onnx : Write what predicts or transforms for other programs.

    Notes
    -----
    Kept are all parameters and all that was learned, also that from which
    `partial_fit` and ``warm_start`` go on, the choice of `set_output`, and the
    metadata requests.

    Not kept are `callback`, the callbacks of scikit-learn, `memory` and `checkpoint`: a file
    must not choose the folder that a later fit reads pickles from, or writes to. These
    parameters are None in what `load` gives back.

    Nor can a file hold a parameter that is a function or an object, such as a callable
    `augment` or a fitted estimator as `init`. `load` puts the default in its place, warns,
    and takes it again by name. Of these it insists on a custom `autoencoder` alone, whose
    code builds the network.

    Of a ``Pipeline`` save the last step, and keep the others by joblib or by fitting them
    again: rows go through ``pipeline[:-1].transform(X)`` first.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> import skaecm
    >>> X = load_iris().data
    >>> model = skaecm.ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skaecm.save(model, folder + "/iris.skaecm")
    ...     again = skaecm.load(folder + "/iris.skaecm")
    >>> bool((again.predict(X) == model.labels_).all())
    True
    """
    need("safetensors", "persistence", "skaecm.save")
    check_kept(estimator)
    writer = Writer()
    requests = None
    if "_metadata_request" in vars(estimator):
        routing = estimator.get_metadata_routing()
        requests = {method: getattr(routing, method).requests for method in METHODS}
    names = LEARNED[type(estimator)].keys() | {"feature_names_in_"} & vars(estimator).keys()
    learned = {name: getattr(estimator, name) for name in sorted(names)}
    check_learned(type(estimator), learned)
    document = {
        "format": FORMAT,
        "versions": versions(),
        "estimator": type(estimator).__name__,
        "parameters": {
            name: encode_parameter(value, name, writer)
            for name, value in estimator.get_params(deep=False).items()
            if name not in NOT_KEPT
        },
        "learned": {
            name: writer.encode(value, f"learned.{name}") for name, value in learned.items()
        },
        "network": encode_network(estimator.module_, writer),
        "training": encode_training(estimator._training_state, writer),
        "output": vars(estimator).get("_sklearn_output_config"),
        "requests": requests,
    }
    write_whole(path, pack(document, writer.tensors, mark=MARK, writer="skaecm.save"))


def load(path, **given_again):
    """Read an estimator that `save` wrote.

    No code is executed: not pickled objects, and no name of a file decides what is
    imported. What was learned is on the CPU, wherever it was fitted. Where the `device` of
    the fit does not exist, `device` becomes "auto".

    Parameters
    ----------
    path : str or path-like
        The file.
    **given_again : dict
        The parameters that the file could not hold, by name. A custom `autoencoder`
        must be there, and be the one of the fit. The others matter for another fit
        only: without them they have their defaults, and a warning says so.

    Returns
    -------
    estimator : ClusteringModuleGMM or DeepAEClustering
        The estimator, equal in every learned attribute, bit for bit.

    Raises
    ------
    ValueError
        If the file is not one of `save`, is damaged, comes from another version, or
        if a custom `autoencoder` must be given again.
    OSError
        If the file cannot be read.
    ImportError
        If safetensors is not installed (``pip install "skaecm[persistence]"``).

    Warns
    -----
    UserWarning
        If parameters that the file could not hold have their defaults, or if `device`
        became "auto".

    See Also
    --------
    save : Write the file.

    Notes
    -----
    `callback`, `memory` and `checkpoint` are not kept, so they are None.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> import skaecm
    >>> X = load_iris().data
    >>> def shaken(batch, generator):
    ...     return batch + 0.1
    >>> model = skaecm.ClusteringModuleGMM(k=3, augment=shaken, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skaecm.save(model, folder + "/iris.skaecm")
    ...     again = skaecm.load(folder + "/iris.skaecm", augment=shaken)
    >>> again.augment is shaken
    True
    """
    with refusals_named(path):
        document, reader = read(path)
        estimator, missed = decode_estimator(document, reader, given_again)
        device = estimator.device
        is_here = device_is_here(device)
    if missed:
        what = ", ".join(f"{name} ({what})" for name, what in missed.items())
        call = ", ".join(f"{name}=..." for name in missed)
        warnings.warn(
            f"{path}: a file cannot hold {what}: the default has taken its place. What was "
            f"learned is all there; for another fit, skaecm.load(path, {call}) gives it again.",
            UserWarning,
            stacklevel=2,
        )
    if not is_here:
        estimator.set_params(device="auto")
        warnings.warn(
            f"{path}: device={str(device)!r} does not exist here, so device is 'auto', which is "
            "CUDA if there is one, else the CPU.",
            UserWarning,
            stacklevel=2,
        )
    return estimator


@contextmanager
def refusals_named(path) -> Iterator[None]:
    """Whatever goes wrong with the content of a file is a ValueError that names it."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Refusal as refusal:
        raise ValueError(f"{path}: {refusal}") from refusal.__cause__
    except Exception as error:
        raise ValueError(
            f"{path}: the file is not one of skaecm.save, or is damaged: {error}. Save the "
            "estimator again."
        ) from None


# The file
# --------


def read(path) -> tuple[dict[str, Any], Reader]:
    """The document and the tensors of a file, which are as they were written."""
    document, tensors = unpack(path, mark=MARK, writer="skaecm.save", reader="skaecm.load")
    if document["format"] != FORMAT:
        writer = document["versions"]["skaecm"]
        is_later = document["format"] > FORMAT
        remedy = "Upgrade skaecm." if is_later else f"Use skaecm {writer}, or fit again."
        raise Refusal(
            f"the file has format {document['format']}, written by skaecm {writer}, but skaecm "
            f"{__version__} reads format {FORMAT}. {remedy}"
        )
    verify(document, tensors)
    if document.keys() != PARTS:
        raise ValueError(f"its parts are {sorted(document)}")
    return document, Reader(tensors)


# The estimator
# -------------


def check_kept(estimator) -> None:
    """Raise if `save` would not keep all of ``estimator``."""
    if type(estimator) not in LEARNED:
        raise TypeError(
            "skaecm.save keeps a fitted ClusteringModuleGMM or DeepAEClustering, but got a "
            f"{type(estimator).__name__}. Of a search save its best_estimator_, of a Pipeline the "
            "last step, pipeline[-1]. Keep its first steps too, by joblib or by another fit: "
            "rows go through pipeline[:-1].transform(X) first."
        )
    check_is_fitted(estimator)
    known = {*estimator.get_params(deep=False), *LEARNED[type(estimator)], *KEPT_APART, *CALLBACKS}
    check_known(estimator, vars(estimator).keys() - known)
    for module in estimator.module_.modules():
        if type(module) in SETTINGS:
            plain = {name for name in vars(module) if not name.startswith("_")} - {"training"}
            check_known(module, plain ^ SETTINGS[type(module)].keys())


def check_known(owner: Any, unknown: set[str]) -> None:
    """Raise if there are attributes that a file has no place for."""
    if unknown:
        raise TypeError(
            f"skaecm.save does not know these attributes of {type(owner).__name__}, which would "
            f"be lost: {', '.join(sorted(unknown))}. Delete them, or keep them elsewhere."
        )


def encode_parameter(value: Any, name: str, writer: Writer) -> Any:
    """A parameter, or what it is if a file cannot hold it."""
    own = Writer()
    try:
        code = own.encode(value, f"parameters.{name}")
    except NotKept:
        return {"given again": describe(value)}
    writer.tensors |= own.tensors
    return code


def decode_estimator(
    document: dict[str, Any], reader: Reader, given: dict[str, Any]
) -> tuple[BaseEstimator, dict[str, str]]:
    """The estimator that a document and its tensors describe, and what it lacks.

    The latter says of every parameter that the file could not hold, and that was not
    given again, what it was; the estimator has its default.
    """
    cls = ESTIMATORS[document["estimator"]]
    codes = {name: code for name, code in document["parameters"].items() if name not in NOT_KEPT}
    unknown = sorted(codes.keys() - set(cls._get_param_names()))
    if unknown:
        raise Refusal(
            f"the file was written by skaecm {document['versions']['skaecm']}, whose "
            f"{cls.__name__} has parameters that skaecm {__version__} does not know: "
            f"{', '.join(unknown)}. Upgrade skaecm."
        )
    left_out = {
        name: str(code["given again"])
        for name, code in codes.items()
        if isinstance(code, dict) and "given again" in code
    }
    is_custom = document["network"]["layers"] is None
    check_given(left_out, given, is_custom)
    missed = {name: what for name, what in left_out.items() if name not in given}
    parameters = {
        name: given[name] if name in left_out else reader.decode(code)
        for name, code in codes.items()
        if name not in missed
    }
    estimator = cls(**parameters)
    learned = {name: reader.decode(code) for name, code in document["learned"].items()}
    check_learned(cls, learned)
    for name, value in learned.items():
        setattr(estimator, name, value)
    recipe = given["autoencoder"] if is_custom else None
    estimator.module_ = decode_network(estimator, document["network"], reader, recipe)
    if isinstance(estimator.module_, DeepNetwork):
        estimator.autoencoder_ = estimator.module_.autoencoder
    estimator._training_state = decode_training(estimator, document["training"], reader)
    set_options(estimator, document["output"], document["requests"])
    if reader.unread:
        raise ValueError(f"it has needless tensors {sorted(reader.unread)}")
    return estimator, missed


def device_is_here(device: Any) -> bool:
    """Whether an estimator with this ``device`` can compute here."""
    try:
        resolve_device(device)
    except ValueError:
        return False
    return True


def check_given(left_out: dict[str, str], given: dict[str, Any], is_custom: bool) -> None:
    """Raise if what builds the network is not given again, or if what the file holds is."""
    asked = {"autoencoder": "a custom one"} | left_out if is_custom else left_out
    if is_custom and "autoencoder" not in given:
        raise Refusal(
            f"a file cannot hold autoencoder ({asked['autoencoder']}), whose code builds the "
            "network: give the one of the fit again, skaecm.load(path, autoencoder=...)."
        )
    surplus = sorted(given.keys() - asked.keys())
    if surplus:
        raise Refusal(
            f"load takes only what the file could not hold ({', '.join(asked) or 'nothing'}), "
            f"but was given {', '.join(surplus)}. Use set_params on the loaded estimator."
        )
    if is_custom and not callable(given["autoencoder"]):
        raise Refusal(
            "the file holds the weights of a custom autoencoder, so autoencoder must be the "
            f"callable of the fit, which builds it, but is {given['autoencoder']!r}."
        )


def check_learned(cls: type, values: dict[str, Any]) -> None:
    """Raise unless these are the attributes of a fit, of the types and shapes they have."""
    table = LEARNED[cls]
    if values.keys() - {"feature_names_in_"} != table.keys():
        raise ValueError(f"the learned attributes are {sorted(values)}")
    k, n_features = values["cluster_centers_"].shape
    # An axis of an array without values is of any length, and no bytes of a file bound it.
    if min(k, n_features, len(values["labels_"])) < 1:
        raise ValueError("there must be a cluster, a feature and a row")
    n_components = values.get("n_components_", k)
    sizes = {"n": len(values["labels_"]), "k": k, "d": n_features, "p": n_components}
    numbers = values["cluster_centers_"].dtype
    if numbers not in (np.float32, np.float64):
        raise ValueError(f"cluster_centers_ is of {numbers}")
    for name, kind in table.items():
        value = values[name]
        if isinstance(kind, type):
            is_right = isinstance(value, kind)
        else:
            shape = tuple(sizes[axis] for axis in kind)
            dtype = np.dtype(np.int64) if name == "labels_" else numbers
            is_right = (type(value), value.shape, value.dtype) == (np.ndarray, shape, dtype)
        if not is_right:
            raise ValueError(f"{name} is of another type or shape than after a fit")
    if (values["n_features_in_"], values["_n_features_out"]) != (n_features, n_components):
        raise ValueError("n_features_in_ or _n_features_out is of another fit")
    names = values.get("feature_names_in_")
    if names is not None and (names.dtype, names.shape) != (object, (n_features,)):
        raise ValueError("feature_names_in_ is not one name for each feature")
    check_history(values["history_"])
    if not 1 <= values["n_clusters_"] <= k:
        raise ValueError("n_clusters_ is not a number of its clusters")
    if any(not isinstance(loss, Real) for loss in values["loss_curve_"]):
        raise ValueError("loss_curve_ holds more than numbers")


def set_options(estimator, output: Any, requests: Any) -> None:
    """Set the choice of `set_output`, and the metadata requests, where there are any."""
    if output is not None:
        if output.keys() != {"transform"} or type(output["transform"]) is not str:
            raise ValueError(f"the choice of output is {output}")
        estimator.set_output(**output)
    if requests is not None:
        with sklearn.config_context(enable_metadata_routing=True):
            for method in METHODS:
                getattr(estimator, f"set_{method}_request")(**requests[method])
