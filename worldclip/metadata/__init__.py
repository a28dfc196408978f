"""Worldwide metadata M: language -> ordered list of concept strings (section 1 of the recipe)."""

from worldclip.metadata.entries import Caps, Metadata, entry_list, metadata_info, read_entries, read_metadata

__all__ = ["Caps", "Metadata", "entry_list", "metadata_info", "read_entries", "read_metadata"]
