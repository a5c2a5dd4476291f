"""Parts of the fault campaign: faults put into commands, and what must come out all the same."""
