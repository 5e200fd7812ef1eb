"""Public types of unsee, importable without torch."""

from unsee.api.attack import Attack, Finding, Victim
from unsee.api.benchmark import Benchmark
from unsee.api.example import PROBES, Example, ImageFile, ImageSource, Kind, Role, Vocabulary
from unsee.api.family import Family
from unsee.api.fast_paths import Engine
from unsee.api.measure import Measure
from unsee.api.method import Group, Method, Needs, Promise, Trial
from unsee.api.response import Response, Score
from unsee.api.session import Session
from unsee.api.training import Part, Quantization, Training
from unsee.api.vlm import VLM

__all__ = [
    "PROBES",
    "VLM",
    "Attack",
    "Benchmark",
    "Engine",
    "Example",
    "Family",
    "Finding",
    "Group",
    "ImageFile",
    "ImageSource",
    "Kind",
    "Measure",
    "Method",
    "Needs",
    "Part",
    "Promise",
    "Quantization",
    "Response",
    "Role",
    "Score",
    "Session",
    "Training",
    "Trial",
    "Victim",
    "Vocabulary",
]
