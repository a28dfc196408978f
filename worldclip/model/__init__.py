"""CLIP models as `transformers.MetaClip2Model`."""
