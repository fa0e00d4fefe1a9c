"""A network, and the training that goes on with it, as JSON and tensors; and back.

The layers of the ready autoencoders are described, so that they are built again
without any code. A custom autoencoder needs the recipe of its fit.
"""

import json
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ._modules import (
    Autoencoder,
    ClusteringModule,
    ClusteringNetwork,
    DeepNetwork,
    ShallowNetwork,
    Standardizer,
)
from ._pretraining import build_autoencoder
from ._tensors import make_generator
from ._training import Passed, Training
from ._values import Reader, Refusal, Writer

# The plain attributes of the modules, which a `state_dict` does not hold.
SETTINGS: dict[type, dict[str, type]] = {
    ShallowNetwork: {"gamma": Real, "unit": Real},
    DeepNetwork: {"gamma": Real, "contrast": bool, "beta": Real, "lam": Real},
    ClusteringModule: {"lookback": Integral},
    Autoencoder: {"mixed_precision": bool},
    Standardizer: {},
}

# The layers of the ready autoencoders: what is theirs, and what they have in common.
STRIDED = {"kernel_size": 3, "stride": 2, "padding": 1}
LAYERS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...], dict[str, Any]]] = {
    "Linear": (nn.Linear, ("in_features", "out_features"), {}),
    "LeakyReLU": (nn.LeakyReLU, ("negative_slope",), {"inplace": True}),
    "Conv2d": (nn.Conv2d, ("in_channels", "out_channels"), STRIDED),
    "ConvTranspose2d": (
        nn.ConvTranspose2d,
        ("in_channels", "out_channels", "output_padding"),
        STRIDED,
    ),
    "Flatten": (nn.Flatten, (), {}),
    "Unflatten": (nn.Unflatten, ("dim", "unflattened_size"), {}),
}

FLOATS = (torch.float32, torch.float64)


def describe_layers(module: nn.Module) -> list[Any] | None:
    """The layers of a ready encoder or decoder; None if it is another module."""
    if type(module) is not nn.Sequential or not all(p.requires_grad for p in module.parameters()):
        return None
    layers: list[Any] = []
    for layer in module:
        kind = type(layer).__name__
        if kind not in LAYERS or type(layer) is not LAYERS[kind][0]:
            return None
        own = {name: getattr(layer, name) for name in LAYERS[kind][1]}
        layers.append([kind, own])
    # JSON knows no tuples and no integers of NumPy; what it gives back must be the same module.
    layers = json.loads(json.dumps(layers, default=int))
    return layers if str(build_layers(layers)) == str(module) else None


def build_layers(layers: list[Any]) -> nn.Sequential:
    """The layers as described, without memory for their weights."""
    modules = []
    with torch.device("meta"):
        for kind, own in layers:
            build, names, common = LAYERS[kind]
            if own.keys() != set(names):
                raise ValueError(f"a layer {kind} has {sorted(own)}")
            own = {name: tuple(v) if isinstance(v, list) else v for name, v in own.items()}
            modules.append(build(**own, **common))
    return nn.Sequential(*modules)


def encode_network(network: ClusteringNetwork, writer: Writer) -> dict[str, Any]:
    """How a network is built, as JSON; its tensors go to ``writer``."""
    layers: list[Any] | None = []
    if isinstance(network, DeepNetwork):
        pair = network.autoencoder.encoder, network.autoencoder.decoder
        described = [describe_layers(module) for module in pair]
        layers = None if None in described else described
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"skaecm.save cannot write {name} of the custom autoencoder's state: it is a "
                f"{type(tensor).__name__}, not a tensor."
            )
        writer.add(tensor, f"network.{name}")
    writer.add(network.alpha, "network.alpha")
    names = SETTINGS[type(network)]
    settings = {name: writer.encode(getattr(network, name), f"settings.{name}") for name in names}
    return {"layers": layers, "settings": settings}


def decode_network(
    estimator, document: dict[str, Any], reader: Reader, recipe: Any
) -> ClusteringNetwork:
    """The network, filled; for a custom autoencoder by ``recipe``."""
    settings = {name: reader.decode(code) for name, code in document["settings"].items()}
    alpha = reader.take("network.alpha")
    k, n_features = estimator.cluster_centers_.shape
    if alpha.shape != (k,) or alpha.dtype not in FLOATS:
        raise ValueError("alpha is not one number for each cluster")
    standardizer = Standardizer(alpha.new_zeros(n_features), alpha.new_ones(()))
    is_deep = hasattr(estimator, "embedding_centers_")
    width = estimator.embedding_centers_.shape[1] if is_deep else n_features
    clustering = ClusteringModule(
        alpha.new_zeros(k, width), alpha.new_zeros(k), alpha.new_zeros(k, width)
    )
    network: ClusteringNetwork
    if is_deep:
        autoencoder = unfilled_autoencoder(document["layers"], recipe, standardizer, width)
        network = DeepNetwork(autoencoder, clustering, alpha, **settings)
    else:
        network = ShallowNetwork(standardizer, clustering, alpha, **settings)
    for name, kind in SETTINGS[type(network)].items():
        if not isinstance(settings[name], kind):
            raise ValueError(f"{name} of the network is {settings[name]!r}")
    expected = network.state_dict()
    found = {
        name.removeprefix("network."): reader.take(name)
        for name in sorted(reader.unread)
        if name.startswith("network.")
    }
    wrong = differences(expected, found)
    if wrong and recipe is not None:
        raise Refusal(
            "the autoencoder that was given builds a network that the file does not fit: "
            f"{', '.join(wrong[:3])}. Give the one of the fit."
        )
    if wrong:
        raise ValueError(f"these tensors do not fit: {', '.join(wrong[:3])}")
    # What a recipe built may share tensors, and is filled; what has no memory takes them.
    network.load_state_dict(found, assign=recipe is None)
    if network.clustering.lookback < 1:
        raise ValueError("the lookback of the network is not positive")
    return network.eval()


def unfilled_autoencoder(
    layers: Any, recipe: Any, standardizer: Standardizer, n_components: int
) -> Autoencoder:
    """The autoencoder, of the layers described or by a recipe, with any weights."""
    if recipe is not None:
        try:
            return build_autoencoder(recipe, standardizer, n_components, make_generator(0))
        except Exception as error:
            raise Refusal(f"the autoencoder that was given cannot be built: {error}") from error
    n_features = len(standardizer.offset)
    dtype = standardizer.offset.dtype
    encoder, decoder = (build_layers(part).to(dtype).eval() for part in layers)
    for module, before, after in (
        (encoder, n_features, n_components),
        (decoder, n_components, n_features),
    ):
        if module(torch.empty(2, before, dtype=dtype, device="meta")).shape != (2, after):
            raise ValueError("the layers do not fit each other")
    return Autoencoder(standardizer, encoder, decoder, n_components)


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of tensors that only one has, or whose shapes or dtypes differ."""
    return [
        name
        for name in sorted(expected.keys() | found.keys())
        if name not in expected
        or name not in found
        or not isinstance(expected[name], Tensor)
        or not isinstance(found[name], Tensor)
        or (expected[name].shape, expected[name].dtype) != (found[name].shape, found[name].dtype)
    ]


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a training, without the settings that each call makes anew."""
    moments = state["optimizer"]["state"]
    n_parameters = sum(len(group["params"]) for group in state["optimizer"]["param_groups"])
    return state | {"optimizer": [moments.get(i) for i in range(n_parameters)]}


def encode_training(state: dict[str, Any] | None, writer: Writer) -> Any:
    """The plain state of a training, as JSON; its tensors go to ``writer``."""
    return None if state is None else writer.encode(plain_state(state), "training")


def decode_training(estimator, code: Any, reader: Reader) -> dict[str, Any] | None:
    """The state of a training of the estimator's network, which it fits."""
    state = reader.decode(code)
    if state is None:
        return None
    network = estimator.module_
    training = Training(
        network,
        phase="training",
        batch_size=1,
        learning_rate=estimator.learning_rate_init,
        epsilon=estimator.epsilon,
        generator=make_generator(0),
    )
    return whole_state(training, state)


def whole_state(training: Training, state: dict[str, Any]) -> dict[str, Any]:
    """A plain state with the settings of ``training``, which it must fit."""
    fresh = training.state_dict()
    if state.keys() != fresh.keys():
        raise ValueError(f"the state of its training has {sorted(state)}")
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    moments = {}
    for i, (parameter, own) in enumerate(zip(parameters, state["optimizer"], strict=True)):
        if own is None:
            continue
        like = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        if differences(like, own):
            raise ValueError("the state of its optimizer does not fit")
        moments[i] = own
    if differences(fresh["module"], state["module"]):
        raise ValueError("the state of its training does not fit the network")
    check_best(state["best"], fresh["module"])
    torch.Generator().set_state(state["generator"])
    check_history(state["history"])
    for name in ("epoch", "n_no_change", "best_loss"):
        if type(state[name]) is not type(fresh[name]):
            raise ValueError(f"{name} of its training is {state[name]!r}")
    groups = fresh["optimizer"]["param_groups"]
    return state | {"optimizer": {"state": moments, "param_groups": groups}}


def check_best(best: Any, module: dict[str, Any]) -> None:
    """Raise if the best state of a training, where it has one, is none of ``module``."""
    if best is None:
        return
    if type(best) is not dict or best.keys() != set(Passed._fields):
        raise ValueError(f"the best state of its training is {best!r:.80}")
    kinds = {"phase": str, "epoch": int, "loss": float, "module": dict}
    wrong = [name for name, kind in kinds.items() if type(best[name]) is not kind]
    if wrong or differences(module, best["module"]):
        raise ValueError("the best state of its training does not fit the network")


def check_history(history: list[Any]) -> None:
    """Raise if a history is not one of an estimator."""
    for row in history:
        if type(row) is not dict or not {"phase", "epoch", "loss"} <= row.keys():
            raise ValueError("a row of the history is none")
        if any(not isinstance(value, str | Real) for value in row.values()):
            raise ValueError("a row of the history holds more than numbers")
