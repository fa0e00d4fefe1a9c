"""An autoencoder from a recipe, trained to reconstruct: the expensive part of a fit."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import joblib
import torch
from sklearn.utils.validation import check_memory
from torch import nn

from ._blocks import fingerprint
from ._modules import Autoencoder, Standardizer
from ._rows import Rows
from ._tensors import make_generator
from ._training import Training, Watcher
from .autoencoders import ConvolutionalAutoencoder, MLPAutoencoder

GLOBAL_GENERATOR = threading.Lock()

# What a cache of `pretrain` does not look into.
IGNORED = ["autoencoder", "rows", "standardizer", "watch"]

Recipe = Callable[[int, int, torch.Generator], tuple[nn.Module, nn.Module]]


def recipe_of(autoencoder: Recipe | None, hidden_layer_sizes: Sequence[int]) -> Recipe:
    """What builds the encoder and the decoder."""
    if autoencoder is not None:
        return autoencoder
    return MLPAutoencoder(tuple(int(size) for size in hidden_layer_sizes))


@contextmanager
def global_generator_seeded(seed: int) -> Iterator[None]:
    """Torch's global CPU generator follows ``seed`` in the block, and is given back.

    A module of the user's may draw its weights from it. One block at a time, so
    that fits in several threads do not give it back out of turn.
    """
    with GLOBAL_GENERATOR:
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(before)


def build_autoencoder(
    recipe: Recipe, standardizer: Standardizer, n_components: int, generator: torch.Generator
) -> Autoencoder:
    """The autoencoder that ``recipe`` describes, checked, in the standardizer's dtype."""
    n_features = len(standardizer.offset)
    if isinstance(recipe, MLPAutoencoder | ConvolutionalAutoencoder):
        pair = recipe(n_features, n_components, generator)
    else:
        with global_generator_seeded(generator.initial_seed()):
            pair = recipe(n_features, n_components, generator)
    is_pair = isinstance(pair, tuple) and len(pair) == 2
    if not is_pair or not all(isinstance(module, nn.Module) for module in pair):
        raise ValueError(
            "autoencoder must return a pair (encoder, decoder) of torch modules, "
            f"but returned {pair!r}."
        )
    if not any(True for module in pair for _ in module.parameters()):
        raise ValueError("The modules that autoencoder returned have no parameters to train.")
    encoder, decoder = (module.to(standardizer.offset) for module in pair)
    widths = {"encoder": (encoder, n_features, n_components)}
    widths["decoder"] = (decoder, n_components, n_features)
    for name, (module, before, after) in widths.items():
        with torch.no_grad():
            rows = torch.zeros(2, before).to(standardizer.offset)
            try:
                shape = tuple(module.eval()(rows).shape)
            except RuntimeError as error:
                raise ValueError(
                    f"The {name} that autoencoder returned does not take rows of "
                    f"{before} values: {error}"
                ) from error
        if shape != (2, after):
            raise ValueError(
                f"The {name} that autoencoder returned must map rows of {before} values "
                f"to rows of {after}, but gave the shape {shape} for 2 rows."
            )
    return Autoencoder(standardizer, encoder, decoder, n_components)


@final
class PretrainingStopped(Exception):
    """Holds a pretraining cut short. It is raised since no cache keeps what is not returned."""

    def __init__(self, autoencoder: Autoencoder, history: list[dict[str, Any]]):
        super().__init__("Pretraining was stopped.")
        self.so_far = autoencoder, history


def pretrain(
    autoencoder: Autoencoder | None,
    rows: Rows,
    data_key: str | None,
    phase: str,
    recipe: Recipe,
    standardizer: Standardizer,
    n_components: int,
    seed: int,
    mixed_precision: bool,
    training_settings: dict[str, Any],
    stopping_settings: dict[str, Any],
    watch: Watcher,
) -> tuple[Autoencoder, list[dict[str, Any]]]:
    """A trained autoencoder on the device of ``rows``, and its history.

    One that is given is trained further, in place. A function of its arguments alone.
    ``data_key`` names the data for joblib's Memory, and what ``autoencoder`` was trained
    with before; it must not look into that, ``rows`` or ``standardizer`` (learned from
    them) or ``watch``.

    Raises
    ------
    PretrainingStopped
        If ``watch`` stopped it.
    """
    generator = make_generator(seed)
    if autoencoder is None:
        autoencoder = build_autoencoder(recipe, standardizer, n_components, generator)
    autoencoder.mixed_precision = mixed_precision
    rows.ranks.align(autoencoder)
    training = Training(autoencoder, phase=phase, generator=generator, **training_settings)
    training.run(rows, watch=watch, **stopping_settings)
    rows.ranks.align(autoencoder)
    if watch.stopped:
        raise PretrainingStopped(autoencoder, training.history)
    return autoencoder, training.history


def pretrain_once(
    memory: Any, data: tuple[Any, ...], *, watch: Watcher, **arguments: Any
) -> tuple[Autoencoder, list[dict[str, Any]]]:
    """`pretrain` with these arguments, unless ``memory`` holds it for the same ``data``.

    After a stop by ``watch`` what was trained so far, which is not cached.
    """
    if arguments["rows"].ranks.size > 1:
        memory = None  # what only some of them find there would leave the others waiting
    cached = check_memory(memory).cache(pretrain, ignore=IGNORED)
    data_key = None if memory is None else joblib.hash(tuple(map(fingerprint, data)))
    try:
        return cached(data_key=data_key, watch=watch, **arguments)
    except PretrainingStopped as stopped:
        return stopped.so_far
