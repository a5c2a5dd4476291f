"""The certificate of other people's samplers: the same measurements, through thin adapters."""
