"""From a network's raw output to denoised images."""
