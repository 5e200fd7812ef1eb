"""Processors that also take videos, opened where videos cannot be read: pictures and text need no torchvision."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.utils import is_torchvision_available
from transformers.utils.hub import cached_file

FILES: Final = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")
"""Where a checkpoint says how its videos are read, in transformers' order."""
_ABSENT: Final = SimpleNamespace(num_frames=None, fps=None)
"""Stands for the part that reads videos; templates ask it for these two."""


def opened(path: Path | str) -> Any:
    """Return the processor of a checkpoint; without its part for videos if torchvision, or that part's settings, are missing."""
    kind = _kind(path)
    if kind is None or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(path)
    videos = _videos(path)
    if videos and is_torchvision_available():
        return AutoProcessor.from_pretrained(path)
    processor = without_videos(kind).from_pretrained(path)
    processor.videos = videos
    return processor


def _kind(path: Path | str) -> Any | None:
    """Return the processor class that the checkpoint's files name, else the one of its model type."""
    named = [_read(path, name).get("processor_class") for name in (*FILES[1:], "tokenizer_config.json")]
    found = next((name for name in named if name), None)
    if found:
        return processor_class_from_name(found)
    return PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(path)), None)


def without_videos(kind: type[ProcessorMixin]) -> Any:
    """Return a processor class like `kind`, of the same name, that neither needs nor has a video processor."""

    def begin(self: Any, image_processor: Any, tokenizer: Any, *_: Any, **settings: Any) -> None:
        settings.pop("video_processor", None)
        kind.__init__(self, image_processor, tokenizer, None, **settings)

    vars(begin)["__signature__"] = inspect.signature(kind.__init__)  # by which transformers knows what to save
    return type(kind.__name__, (_Still, kind), {"__module__": kind.__module__, "original": kind, "__init__": begin})


class _Still:
    """What is put before a processor class to take its videos away."""

    original: ClassVar[Any]
    """The class as transformers has it."""
    video_processor: Any = _ABSENT
    videos: dict[str, Any] | None = None
    """How the checkpoint reads videos, kept for those who open a saved folder with torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the names of the parts."""
        return [name for name in cls.original.get_attributes() if name != "video_processor"]

    @classmethod
    def from_args_and_dict(cls, args: Sequence[Any], processor_dict: Mapping[str, Any], **more: Any) -> Any:
        """Return the processor of these parts and settings; transformers would look for the settings in our `__init__`."""
        known = inspect.signature(cls.original.__init__).parameters.keys() - set(cls.original.get_attributes())
        return cls(*args, **{name: value for name, value in {**processor_dict, **more}.items() if name in known})

    def save_pretrained(self, folder: Path | str, **options: Any) -> Any:
        """Save the processor, and what the checkpoint said about videos."""
        saved = self.original.save_pretrained(self, folder, **options)
        if self.videos is not None:
            (Path(folder) / FILES[0]).write_text(json.dumps(self.videos, indent=2) + "\n", encoding="utf-8")
        return saved


def _videos(path: Path | str) -> dict[str, Any] | None:
    """Return the settings of the video processor as the checkpoint's files have them; older ones share the image processor's."""
    pictures = _read(path, FILES[2])
    if "image_processor_type" in pictures:
        pictures["image_processor_type"] = pictures["image_processor_type"].removesuffix("Fast")
    own = [_read(path, FILES[0]), _read(path, FILES[1]).get("video_processor"), pictures]
    return next((dict(found) for found in own if found), None)


def _read(path: Path | str, name: str) -> dict[str, Any]:
    """Return what a JSON file of the checkpoint says; nothing if there is none."""
    file = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    return dict(json.loads(Path(file).read_text(encoding="utf-8"))) if file else {}
