"""Where rows are told as they come."""
