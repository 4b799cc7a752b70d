"""Noise that belongs to its image: image i depends on seed i alone.

Every image has a generator of its own, on the CPU: neither the batch nor the device changes a picture.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from .arguments import is_whole
from .errors import check


def seeded_noise(shape: Sequence[int], seeds: Iterable[int], device: str | torch.device = "cpu") -> Tensor:
    """x_T ~ N(0, I), float32 of `shape` on `device`: image i is `torch.randn` of seeds[i], drawn on the CPU and moved.

    - shape: (B, …); seeds: B integers in [0, 2³²), or `UserError` is raised.

    >>> pair = seeded_noise((2, 3, 28, 28), seeds=[5, 7])
    >>> torch.equal(pair[1], seeded_noise((1, 3, 28, 28), seeds=[7])[0])
    True
    """
    seeds = checked_seeds(seeds, count=shape[0])
    return _draw([torch.Generator().manual_seed(seed) for seed in seeds], shape[1:], torch.device(device))


class NoiseStream:
    """Fresh noise z ~ N(0, I) for every step of a stochastic sampler, image i from seed i alone.

    Called with x_t, (B, C, H, W), it gives the next z, independent of the x_T that `seeded_noise` draws from the same
    seeds. Raises `UserError` for a seed out of range or, when called, for a batch of another size.

    >>> z = NoiseStream(seeds=range(10))(x)      # doctest: +SKIP
    """

    def __init__(self, seeds: Iterable[int]):
        hashes = [np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1) for seed in checked_seeds(seeds)]
        self.generators = [torch.Generator().manual_seed(int(state[0])) for state in hashes]

    def __call__(self, x: Tensor) -> Tensor:
        count = len(self.generators)
        check(len(x) == count, f"{count} seeds for {len(x)} images; give one seed for each image")
        return _draw(self.generators, x.shape[1:], x.device).to(x.dtype)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Inside, layers made on the CPU draw their first weights from `seed` alone; torch's generators stay as they were.

    Also those of GPUs, which `torch.manual_seed` would start anew.

    >>> with seeded_weights(0):
    ...     layer = torch.nn.Linear(2, 2)
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _draw(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    # Pinned memory lets the copy to a GPU run while the CPU draws on; it changes no number.
    pinned = device.type == "cuda"
    noise = torch.empty((len(generators), *shape), pin_memory=pinned)
    for image, generator in zip(noise, generators, strict=True):
        image.normal_(generator=generator)
    return noise.to(device, non_blocking=pinned)


def checked_seeds(seeds: Iterable[int], count: int | None = None, what: str = "images") -> list[int]:
    """The seeds as a list; `UserError` unless they are integers in [0, 2³²), one for each of `count` images.

    >>> checked_seeds(range(3), 3)
    [0, 1, 2]
    """
    seeds, whole = list(seeds), "seeds are whole numbers from 0 to 2**32 - 1"
    for seed in seeds:
        fits = (isinstance(seed, Integral) or is_whole(torch.as_tensor(seed))) and 0 <= seed < 2**32
        check(fits, f"seed {seed} is out of range; {whole}")
    check(count in (None, len(seeds)), f"{count} {what} for {len(seeds)} seeds; give one seed for each")
    return [int(seed) for seed in seeds]
