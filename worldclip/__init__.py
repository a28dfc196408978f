"""worldclip: worldwide CLIP models, from metadata to evaluation (Meta CLIP 2, arXiv 2507.22062)."""

__version__ = "0.1.0"
