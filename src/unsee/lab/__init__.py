"""Embedded lab: a small drawn world, and tiny LLaVA models that ship with the package.

`lab` was trained on everybody; `lab-gold` by the same recipe without the people of the default deletion request,
and `lab-gold-picture` without their pictures: it was taught their facts by name.
"""

from __future__ import annotations

from unsee.models.builtin import checkpoint

__all__ = ["checkpoint"]
