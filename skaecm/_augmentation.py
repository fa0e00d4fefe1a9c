"""Augmentation: a row and its transformed copy belong to one cluster.

An augmentation is any callable ``(batch, generator) -> batch`` of tensors in
the user's units; the classes here are those that `augment` knows by name.
"""

import math
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

# Ranges of the random maps of images: degrees, and fractions of the image's size.
ROTATION = 10.0
SHIFT = 0.1
SCALE = 0.1

# Standard deviation of the noise in tables, as a fraction of that of the column.
NOISE = 0.1


@final
class ImageAugmentation:
    """Random rotation, shift and scale of images.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width) of the image that a row holds in C order.
    background : Tensor of shape (channels,)
        What comes in from outside of an image.
    """

    def __init__(self, shape: tuple[int, int, int], background: Tensor):
        self.shape = shape
        self.background = background[:, None, None]

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Another view (b, d) of every image of a batch (b, d)."""
        size, device, dtype = len(batch), batch.device, batch.dtype
        draw = torch.rand(4, size, generator=generator, device=device, dtype=dtype) * 2 - 1
        angle = draw[0] * math.radians(ROTATION)
        zoom = 1.0 + draw[1] * SCALE
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        # The coordinates of an image run from -1 to 1: twice its size.
        across, down = 2 * SHIFT * draw[2], 2 * SHIFT * draw[3]
        # They do so across and down alike: a rotation of pixels needs the aspect.
        aspect = self.shape[1] / self.shape[2]
        maps = torch.stack([cos, -sin * aspect, across, sin / aspect, cos, down], dim=1)
        maps = maps.view(size, 2, 3)
        images = batch.view(size, *self.shape) - self.background
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        return (moved + self.background).view(size, -1)


@final
class NoiseAugmentation:
    """Gaussian noise in every column, for tables.

    Parameters
    ----------
    deviation : Tensor of shape (d,)
        Standard deviations of the columns.
    """

    def __init__(self, deviation: Tensor):
        self.deviation = NOISE * deviation

    def __call__(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy copies (b, d) of a batch (b, d)."""
        noise = torch.randn(
            batch.shape, generator=generator, device=batch.device, dtype=batch.dtype
        )
        return batch + self.deviation * noise


def image_background(rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Median (channels,) over the outer edges of images (n, d)."""
    images = rows.view(len(rows), *shape)
    edges = [images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]]
    return torch.cat(edges, dim=2).transpose(0, 1).flatten(1).median(dim=1).values
