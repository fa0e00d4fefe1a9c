"""Encoder and decoder pairs, to hand to `DeepAEClustering(autoencoder=...)`.

An autoencoder is any callable ``(n_features, n_components, generator) ->
(encoder, decoder)`` of torch modules; the classes here are ready ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

__all__ = ["ConvolutionalAutoencoder", "MLPAutoencoder"]

NEGATIVE_SLOPE = 0.2


def check_image_shape(image_shape: Sequence[int], n_features: int) -> tuple[int, int, int]:
    """(channels, height, width) of the images that rows of ``n_features`` values hold."""
    shape = tuple(image_shape)
    shape = (1, *shape) if len(shape) == 2 else shape
    is_shape = len(shape) == 3 and all(isinstance(size, Integral) for size in shape)
    if not is_shape or min(shape) < 1 or math.prod(shape) != n_features:
        raise ValueError(
            "image_shape must be (height, width) or (channels, height, width) of the image that "
            f"a row of X holds in C order, with a product of {n_features}, the number of "
            f"features of X, but is {image_shape!r}."
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


@final
@dataclass(frozen=True)
class MLPAutoencoder:
    """Fully connected layers with LeakyReLU(0.2), and their mirror image.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(500, 500, 2000)
        Widths of the hidden layers of the encoder.

    Examples
    --------
    >>> import torch
    >>> from skaecm.autoencoders import MLPAutoencoder
    >>> encoder, decoder = MLPAutoencoder((32,))(16, 4, torch.Generator())
    >>> encoder(torch.zeros(2, 16, dtype=torch.float64)).shape
    torch.Size([2, 4])
    """

    hidden_layer_sizes: Sequence[int] = (500, 500, 2000)

    def __call__(
        self, n_features: int, n_components: int, generator: torch.Generator
    ) -> tuple[nn.Module, nn.Module]:
        """Build the pair, with Glorot weights drawn from ``generator``."""
        widths = [n_features, *self.hidden_layer_sizes, n_components]
        return (_dense_layers(widths, generator), _dense_layers(widths[::-1], generator))


@final
@dataclass(frozen=True)
class ConvolutionalAutoencoder:
    """Convolutions of stride two for images, and their mirror image.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width) or (channels, height, width) of the image that a row of X
        holds in C order.
    channels : sequence of int, default=(32, 64)
        Channels of the convolutions, each of which halves height and width.

    Examples
    --------
    >>> import torch
    >>> from skaecm.autoencoders import ConvolutionalAutoencoder
    >>> pair = ConvolutionalAutoencoder(image_shape=(8, 8), channels=(4, 8))
    >>> encoder, decoder = pair(64, 10, torch.Generator())
    >>> decoder(encoder(torch.zeros(2, 64, dtype=torch.float64))).shape
    torch.Size([2, 64])
    """

    image_shape: tuple[int, ...]
    channels: Sequence[int] = (32, 64)

    def __call__(
        self, n_features: int, n_components: int, generator: torch.Generator
    ) -> tuple[nn.Module, nn.Module]:
        """Build the pair, with Glorot weights drawn from ``generator``."""
        shape = check_image_shape(self.image_shape, n_features)
        if len(self.channels) == 0:
            raise ValueError("channels must hold the width of one convolution or more.")
        widths = [shape[0], *self.channels]
        sizes = [(shape[1], shape[2])]
        for _ in self.channels:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
        inner = (widths[-1], *sizes[-1])
        n_inner = inner[0] * inner[1] * inner[2]

        encoder: list[nn.Module] = [nn.Unflatten(1, shape)]
        for before, after in pairwise(widths):
            encoder += [_convolution(before, after, generator), _activation()]
        encoder += [nn.Flatten(), _linear(n_inner, n_components, generator)]

        decoder: list[nn.Module] = [_linear(n_components, n_inner, generator)]
        decoder += [_activation(), nn.Unflatten(1, inner)]
        for i in range(len(self.channels), 0, -1):
            # The extra row or column that makes the transposed size exact.
            extra = (1 - sizes[i - 1][0] % 2, 1 - sizes[i - 1][1] % 2)
            decoder.append(_convolution_back(widths[i], widths[i - 1], extra, generator))
            decoder.append(_activation() if i > 1 else nn.Flatten())
        return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _activation() -> nn.Module:
    return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)


def _dense_layers(widths: list[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these widths, activations between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [_linear(before, after, generator), _activation()]
    return nn.Sequential(*layers[:-1])


def _linear(before: int, after: int, generator: torch.Generator) -> nn.Module:
    return _glorot(skip_init(nn.Linear, before, after, dtype=torch.float64), generator)


def _convolution(before: int, after: int, generator: torch.Generator) -> nn.Module:
    layer = skip_init(
        nn.Conv2d, before, after, kernel_size=3, stride=2, padding=1, dtype=torch.float64
    )
    return _glorot(layer, generator)


def _convolution_back(
    before: int, after: int, output_padding: tuple[int, int], generator: torch.Generator
) -> nn.Module:
    layer = skip_init(
        nn.ConvTranspose2d,
        before,
        after,
        kernel_size=3,
        stride=2,
        padding=1,
        output_padding=output_padding,
        dtype=torch.float64,
    )
    return _glorot(layer, generator)


def _glorot(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot uniform weights and zero biases, drawn in float64 for every dtype."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    nn.init.xavier_uniform_(weight, generator=generator)
    nn.init.zeros_(bias)
    return layer
