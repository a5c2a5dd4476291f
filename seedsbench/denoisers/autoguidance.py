"""Autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad version of itself")."""

from collections.abc import Callable

from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, Wrapper
from seedsbench.denoisers.prediction import Extrapolated
from seedsbench.diffusion.process import evaluations_at


class WithWeaker(Wrapper):
    """A denoiser, at its own cost, that has a weaker one of the same task beside it as `weaker`.

    weaker: trained less, smaller, or without classes; of images of the same shape. Noise levels are those
    that both are good for. Raises ValueError for images of another shape, and for other classes.
    """

    def __init__(self, denoiser: Denoiser, weaker: Denoiser) -> None:
        super().__init__(denoiser)
        if weaker.image_shape != denoiser.image_shape or weaker.label_dim not in (0, denoiser.label_dim):
            raise ValueError(
                f"the weaker network has images {list(weaker.image_shape)}, {weaker.label_dim} classes, "
                f"the model {list(denoiser.image_shape)} and {denoiser.label_dim}: give one of these, or "
                "without classes"
            )
        self.weaker = weaker
        self.sigma_min = max(denoiser.sigma_min, weaker.sigma_min)
        self.sigma_max = min(denoiser.sigma_max, weaker.sigma_max)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.denoiser(x, sigma, labels)

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> "WithWeaker":
        return WithWeaker(self.denoiser.with_network(change), self.weaker.with_network(change))


class AutoGuided(Extrapolated):
    """D_g + scale (D - D_g), D_g the weaker network: it goes on where that one would still improve.

    denoiser: with its weaker one beside it. interval: see `Extrapolated`. A weaker network without classes is
    given none, which makes of this guidance by a separate unconditional network.
    """

    denoiser: WithWeaker

    def __init__(
        self, denoiser: WithWeaker, scale: float, interval: tuple[float, float] | None = None
    ) -> None:
        super().__init__(denoiser, scale, interval, guides=scale != 1, cost=denoiser.weaker.evaluations)

    def _cost(self, sigma: Tensor) -> int | Tensor:
        return evaluations_at(self.denoiser.weaker, sigma)

    def _other(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        weaker = self.denoiser.weaker
        return weaker(x, sigma, labels if weaker.label_dim else None)
