"""A lab model of one narrow layer each, for tests of the training where its grades do not matter."""

from __future__ import annotations

from unsee.lab.recipe.model import Size

NARROW = Size(vision_hidden=32, vision_layers=1, vision_mlp=64, hidden=32, layers=1, mlp=64, heads=2)
"""Muon's bfloat16 products take seconds per step at the full width, on processors without bfloat16 units."""
