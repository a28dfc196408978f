"""Algorithm 1 of the paper, one file a step: language, matches, counts, thresholds, sampling."""

from worldclip.curation.lid import LanguageId
from worldclip.curation.match import Index
from worldclip.curation.sample import keep_probability
from worldclip.curation.threshold import entry_probability, tail_share, tail_threshold

__all__ = ["Index", "LanguageId", "entry_probability", "keep_probability", "tail_share", "tail_threshold"]
