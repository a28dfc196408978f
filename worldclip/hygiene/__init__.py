"""Which images must not be trained on (the paper's appendix): copies, evaluation images, opt-outs, unsafe ones, faces.

Each step gives `REMOVALS`: ids with a reason. Nothing is deleted: what is removed is written down, and comes back when
its reason is left out.
"""

from __future__ import annotations
