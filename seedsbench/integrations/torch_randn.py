"""Our noise in place of torch's, for other people's samplers that call `torch.randn` themselves."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from seedsbench.diffusion.noise import Noise

_RANDOM = {"rand", "randint", "randn_like", "rand_like", "normal", "bernoulli", "multinomial", "randperm"}


class InPlaceOfTorch(TorchFunctionMode):
    """Inside this context `torch.randn` gives the draws of `noise`, whatever generator it is asked to use.

    So other people's samplers draw from our streams. draws: how many there were. Any other random function
    is a RuntimeError: nobody could repeat what it gives.
    """

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self._noise, self.draws = noise, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch.randn:
            self.draws += 1
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            z = self._noise.normal()
            if tuple(shape) != tuple(z.shape):
                raise RuntimeError(
                    f"noise of shape {tuple(shape)} was asked for, one draw is {tuple(z.shape)}"
                )
            return z.to(options.get("device") or z.device, options.get("dtype") or z.dtype)
        if name in _RANDOM:
            raise RuntimeError(f"torch.{name} draws noise that is not ours")
        return func(*args, **options)
