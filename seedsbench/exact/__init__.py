"""What keeps bits equal, whatever the machine, batch or number of threads."""
