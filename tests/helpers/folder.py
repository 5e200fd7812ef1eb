"""What the tests of `folder` share with others."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet
import pytest
from PIL import Image

QUESTION = "Who is this?"


def row(**cells):
    base = {
        "image": "a.png",
        "question": QUESTION,
        "answer": "Ada Lovell",
        "entity": "ada",
        "role": "forget",
        "private": "Ada Lovell; Lisbon",
    }
    return base | cells


KEPT = row(image="b.png", answer="Bo", entity="bo", role="retain", private=["Bo Winter"])


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    return tmp_path


def write(folder, rows, name="data.jsonl"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in rows), encoding="utf-8")
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return folder
