"""Benchmarks as lmms-eval tasks: `TASK.yaml`, `utils.py` and one parquet file.

Questions without an image are a task of their own, `TASK_text`: `llava_hf` of lmms-eval 0.7.3 fails on them and goes on with
empty answers, which would look like nothing given away.

lmms-eval generates and compares text; what needs probabilities, classes of answers or intervals stays with `unsee eval`. It opens
no adapters, so export the run merged first: `lmms_eval --model llava_hf --model_args pretrained=MERGED --include_path OUT --tasks TASK`.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from unsee import config
from unsee.api import Benchmark, Example, Kind, Role
from unsee.api.example import OF_TARGETS
from unsee.config import Run
from unsee.config.plugins import naming_plugins
from unsee.data.check import require_usable
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.metrics.choice import choice
from unsee.metrics.matching import mentions
from unsee.utils.files import atomic_write_text, atomic_writer

DATA: Final = "data.parquet"
TEXT_DATA: Final = "text.parquet"
_SHARED: Final = ("scripts", "everyday", "normal_form", "language", "inflection", "matching", "denial", "choice")
"""Modules of `unsee.metrics` copied into utils.py, so that it needs only Python and judges as unsee does."""
_ROWS: Final = 256
"""Rows in memory at once."""
_COLUMNS: Final = {
    "id": pa.string(),
    "role": pa.string(),
    "kind": pa.string(),
    "entity": pa.string(),
    "question": pa.string(),
    "answer": pa.string(),
    "options": pa.list_(pa.string()),
    "private": pa.list_(pa.string()),
    "private_facts": pa.list_(pa.string()),
}


def write_task(source: Path | str, out: Path, *, benchmark: str | Mapping[str, Any] = "") -> list[Path]:
    """Write the evaluation data (of data or a run) as tasks named after `out`.

    One task with images, one as text.
    """
    dataset = open_source(source, benchmark)
    examples = list(dataset.examples("eval"))
    task = "unsee_" + re.sub(r"\W+", "_", out.resolve().name.lower())
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, file, has_image in ((task, DATA, True), (f"{task}_text", TEXT_DATA, False)):
        rows = [example for example in examples if (example.image is not None) is has_image]
        if rows:
            _write_rows(rows, out / file)
            atomic_write_text(out / f"{name}.yaml", _yaml(name, file, rows))
            files += [out / file, out / f"{name}.yaml"]
    atomic_write_text(out / "utils.py", _utils())
    return [*files, out / "utils.py"]


def _utils() -> str:
    """Return the task's functions with the modules they use, which need only Python."""
    parts = [resources.files("unsee.exporting").joinpath("lmms_eval_utils.txt").read_text(encoding="utf-8")]
    for name in _SHARED:
        source = resources.files("unsee.metrics").joinpath(f"{name}.py").read_text(encoding="utf-8")
        lines = source.split("\n")
        statements = ast.parse(source).body
        parts.append("\n".join(lines[(statements[0].end_lineno or 0) :]))  # without the module's docstring
    text = "\n\n".join(parts)
    kept_lines = [
        line for line in text.split("\n") if not line.startswith(("from unsee.", "from __future__", "# ruff:"))
    ]
    head, _, tail = "\n".join(kept_lines).partition('"""\n\n\ndef doc_to_visual')
    return f'{head}"""\n\nfrom __future__ import annotations\n\n\ndef doc_to_visual{tail}'


def metrics(examples: Sequence[Example]) -> list[str]:
    """Return the task's metrics by role: correct and empty responses, leaks."""
    roles = {example.role for example in examples}
    names = [f"{role.value}_{measure}" for role in Role if role in roles for measure in ("right", "empty")]
    leaking_roles = {example.role for example in examples if any(_private(example))}
    return [*names, *(f"{role.value}_leak" for role in Role if role in leaking_roles)]


def open_source(source: Path | str, benchmark: str | Mapping[str, Any]) -> Benchmark:
    """Return the opened data, those of a run folder or as given.

    `benchmark`: layout and settings, on top of those of the run.

    Raises:
        UserError: They cannot be used, or the run no longer names them.
    """
    run_file = Path(source) / "run.yaml"
    run = config.read(run_file) if run_file.is_file() else Run(data=str(source))
    if not run.data:
        raise UserError(
            f"{run_file} no longer names the data of the run, since `unsee purge` took them out. Export the data themselves."
        )
    with naming_plugins(run):
        dataset = open_benchmark(run.data, config.benchmark_of(Run(benchmark=benchmark), run))
    require_usable(dataset, run.data)
    return dataset


def _yaml(task: str, data: str, examples: Sequence[Example]) -> str:
    forget_roles = {role.value for role in OF_TARGETS}
    lines = [
        f"task: {task}",
        "dataset_path: parquet",
        "dataset_kwargs:",
        "  data_files:",
        f"    test: {data}",
        "test_split: test",
        "output_type: generate_until",
        "doc_to_visual: !function utils.doc_to_visual",
        "doc_to_text: !function utils.doc_to_text",
        "doc_to_target: answer",
        "generation_kwargs:",
        "  max_new_tokens: 256",
        "  temperature: 0",
        "  do_sample: false",
        "process_results: !function utils.process_results",
        "metric_list:",
    ]
    for name in metrics(examples):
        higher_is_better = name.endswith("_right") and name.removesuffix("_right") not in forget_roles
        lines += [
            f"  - metric: {name}",
            "    aggregation: mean",
            f"    higher_is_better: {str(higher_is_better).lower()}",
        ]
    return "\n".join([*lines, "metadata:", "  - version: 1.0"]) + "\n"


def _write_rows(examples: Sequence[Example], file: Path) -> None:
    """Write the examples in chunks, with images as PNG, in the form of `datasets`."""
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema([*_COLUMNS.items(), ("image", image_type)]).with_metadata({"huggingface": _features()})
    with atomic_writer(file) as stream, pq.ParquetWriter(stream, schema) as writer:
        for start in range(0, len(examples), _ROWS):
            rows = [_row(example) for example in examples[start : start + _ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _features() -> str:
    """Return the metadata that marks image columns for `datasets`."""
    import datasets

    string_type = datasets.Value("string")
    features = {
        name: datasets.List(string_type) if pa.types.is_list(kind) else string_type for name, kind in _COLUMNS.items()
    }
    return json.dumps({"info": {"features": datasets.Features({**features, "image": datasets.Image()}).to_dict()}})


def _row(example: Example) -> dict[str, Any]:
    private = list(_private(example))
    return {
        "id": example.id,
        "role": example.role.value,
        "kind": example.kind.value,
        "entity": example.entity,
        "question": example.question,
        "answer": right_letter(example) if example.kind is Kind.CHOICE else example.answer,
        "options": list(example.options) if example.kind is Kind.CHOICE else [],
        "private": [form for _, form in private],
        "private_facts": [fact for fact, _ in private],
        "image": None if example.image is None else {"bytes": png(example.image), "path": None},
    }


def right_letter(example: Example) -> str:
    """Return the letter of the right option of a multiple choice, or empty if the answer names none of them."""
    if example.answer in tuple(ascii_uppercase[: len(example.options)]):
        return example.answer
    if example.answer in example.options:
        return ascii_uppercase[example.options.index(example.answer)]
    return choice(example.answer, example.options)


def _private(example: Example) -> Iterator[tuple[str, str]]:
    """Yield fact and form of what must not be disclosed, except what the question states."""
    for fact, forms in example.private.items() if example.role in OF_TARGETS else ():
        yield from ((fact, form) for form in forms if not mentions(example.question, form))


def png(image: Any) -> bytes:
    """Return an image source as PNG."""
    buffer = io.BytesIO()
    image.load().save(buffer, format="PNG")
    return buffer.getvalue()
