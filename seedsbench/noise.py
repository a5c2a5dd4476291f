"""Public name of the noise sources: `seedsbench.noise.Recorded(z)` and friends."""

from seedsbench.diffusion.noise import Noise, PerImage, Philox, Recorded, Silent, edm_start, latents

__all__ = ["Noise", "PerImage", "Philox", "Recorded", "Silent", "edm_start", "latents"]
