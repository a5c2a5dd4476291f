"""What the commands do: their words, their cells, and how cells are started."""
