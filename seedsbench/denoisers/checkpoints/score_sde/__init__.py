"""score_sde's checkpoints."""
