"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: image tokens by resolution, 3D positions."""

from __future__ import annotations

from typing import ClassVar

from unsee.models.auto import AutoFamily


class QwenVL(AutoFamily):
    """Qwen-VL, whose projector is `visual.merger`.

    Position ids come from `image_grid_thw` and `mm_token_type_ids`.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
