"""What the checkpoint readers share."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read: what was wrong, the value, what would work."""
