"""What all checkpoint readers share."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read: one line that says what was wrong, the value, what would work."""
