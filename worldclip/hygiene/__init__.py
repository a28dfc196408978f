"""Which images must not be trained on (the paper's appendix), as pure functions of tables, arrays and pictures.

codes      64 bits of an embedding, and the codes near a code
dedup      copies by bytes, by URL and by codes; evaluation images in training
optout     opt-outs by URL, domain and content hash, and what pages say themselves
safety     scores of unsafe content, by ONNX models of one's own (onnx_models)
faces      found and blurred
removals   ids with a reason: what is removed is written down, and comes back when its reason is left out
"""

from __future__ import annotations
