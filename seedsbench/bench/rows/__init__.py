"""What is kept of a cell: its key, its columns, its file."""
