"""Processors without their video part, so that torchvision is not required.

Processor classes that read videos cannot be constructed where torchvision is missing, although the part is used for videos
only. Here their list of parts leaves it out. With torchvision the plain way is taken: the class's `from_pretrained`, which,
unlike AutoProcessor's way over the model's type, passes on to all parts that no code of the checkpoint may run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import PROCESSOR_MAPPING, AutoConfig, AutoProcessor, ProcessorMixin

FILES: Final = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")
"""Files of a checkpoint with video settings, in transformers' order."""
_ABSENT: Final = SimpleNamespace(num_frames=None, fps=None)
"""Stand-in for the video part, with the two values that chat templates read."""


def open_processor(path: Path | str) -> Any:
    """Return the processor of a checkpoint, without its video part if that cannot be opened."""
    processor_class = _kind(path)
    if processor_class is None:
        return AutoProcessor.from_pretrained(path, trust_remote_code=False)
    if "video_processor" not in processor_class.get_attributes():
        return processor_class.from_pretrained(path, trust_remote_code=False)
    videos = _videos(path)
    if videos and find_spec("torchvision"):
        return processor_class.from_pretrained(path, trust_remote_code=False)
    processor = without_videos(processor_class).from_pretrained(path, trust_remote_code=False)
    processor.videos = videos
    return processor


def without_videos(processor_class: type[ProcessorMixin]) -> Any:
    """Return a processor class of the same name without a video part."""
    return type(processor_class.__name__, (_WithoutVideos, processor_class), {"__module__": processor_class.__module__})


class _WithoutVideos:
    """Mixin for a processor class that leaves its video part out."""

    video_processor: Any = _ABSENT
    videos: dict[str, Any] | None = None
    """Video settings of the checkpoint, kept for users of a saved folder with torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the names of the parts."""
        parts: list[str] = super().get_attributes()  # type: ignore[misc]
        return [name for name in parts if name != "video_processor"]

    @classmethod
    def from_args_and_dict(cls, args: Sequence[Any], processor_dict: dict[str, Any], **more: Any) -> Any:
        """Return the processor of these parts and settings, without the video part."""
        parts: list[str] = super().get_attributes()  # type: ignore[misc]
        index = parts.index("video_processor")
        return super().from_args_and_dict([*args[:index], None, *args[index:]], processor_dict, **more)  # type: ignore[misc]

    def save_pretrained(self, folder: Path | str, **options: Any) -> Any:
        """Save the processor and the checkpoint's own settings for videos."""
        saved = super().save_pretrained(folder, **options)  # type: ignore[misc]
        if self.videos is not None:
            (Path(folder) / FILES[0]).write_text(json.dumps(self.videos, indent=2) + "\n", encoding="utf-8")
        return saved


def _kind(path: Path | str) -> Any | None:
    """Return the processor class named in the checkpoint's files, else that of its model, or None if there is none."""
    class_names = [_read(path, name).get("processor_class") for name in (*FILES[1:], "tokenizer_config.json")]
    if class_name := next(filter(None, class_names), None):
        return getattr(transformers, class_name, None)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError):  # AutoProcessor reports what is missing
        return None
    return PROCESSOR_MAPPING.get(type(config), None)


def _videos(path: Path | str) -> dict[str, Any] | None:
    """Return the checkpoint's video settings. Older ones share those of the image processor."""
    image_settings = _read(path, FILES[2])
    if "image_processor_type" in image_settings:
        image_settings["image_processor_type"] = image_settings["image_processor_type"].removesuffix("Fast")
    candidates = [_read(path, FILES[0]), _read(path, FILES[1]).get("video_processor"), image_settings]
    return next((dict(settings) for settings in candidates if settings), None)


def _read(path: Path | str, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of the checkpoint, nothing if there is none."""
    file = Path(path) / name
    if not Path(path).is_dir():
        try:
            file = Path(hf_hub_download(str(path), name))
        except EntryNotFoundError:
            return {}
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
