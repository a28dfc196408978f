"""Where image-text pairs come from."""
