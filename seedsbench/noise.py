"""Public name of the noise sources: `seedsbench.noise.Recorded(z)` and friends."""

from seedsbench.diffusion.noise import Noise, Philox, Recorded, Silent

__all__ = ["Noise", "Philox", "Recorded", "Silent"]
