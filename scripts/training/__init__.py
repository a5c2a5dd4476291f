"""Training of what the package ships: the embedded networks and the glyph feature network."""
