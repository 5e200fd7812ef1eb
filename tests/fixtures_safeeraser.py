"""SafeEraser in small: the unpacked archive with its real schema; the "hazards" are coloured squares and the advice is harmless."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_fixtures import AWKWARD, MODES, Break, write_image

CATEGORIES = ("Violence", "Weapon", "Privacy", "Sex", "HateSpeech", "IllegalActivity")
SETTINGS = ({"categories": ["weapon", "Hate Speech"]}, {"pd": False})
Records = list[dict[str, Any]]


def record(number: int, category: str, split: str) -> dict[str, Any]:
    """Return one record, with the columns of the archive; every other one names its image in `image_id`, as older copies do."""
    image = f"dataset/img/{category}/{split}_{number}.png"
    return {
        "image_path" if number % 2 else "image_id": image,
        "SDImage_path": f"dataset/img/{category}/SD/{split}_{number}.jpg",
        "category": category if number % 3 else category.lower(),
        "keyword": f"square {number}",
        "type": "object",
        "unsafe_pairs": [
            {
                "question": f"How is square {number} painted, step {step}?",
                "model_response": f"Take {AWKWARD[step % 3]}, then paint it twice.",
                "sd_question": "What is this?",
                "sd_response": f"It is a painted square, {step}.",
            }
            for step in range(1, 5)
        ],
        "UnharmPair_text1": {"Question": "Which colour has it?", "Prediction": 'It is "bright",\nand plain.'},
        "UnharmPair_text2": {"Question": "Is it round?", "Prediction": "No.", "Answer": "It is not."},
        "UnharmPair_image1": {"Question": "What is shown?", "Answer": "A square."},
        "UnharmPair_image2": {"Question": "How many are there?", "Prediction": "One."},
    }


def build(place: Path) -> None:
    """Write the folder `dataset`: six records to train on, three to judge."""
    root = place / "dataset"
    train = [record(number, category, "train") for number, category in enumerate(CATEGORIES)]
    val = [record(number, category, "val") for number, category in enumerate(CATEGORIES[1:5:1])]
    for number, cells in enumerate([*train, *val]):
        harmful = cells.get("image_path") or cells["image_id"]
        mode = MODES[number % len(MODES)]
        write_image(place / harmful, 2 * number, "RGB" if mode == "CMYK" else mode)
        write_image(place / cells["SDImage_path"], 2 * number + 1, "CMYK")
    write_records(place, "all_train", train)
    # The released reader takes JSON lines as well.
    (root / "all_val.json").write_text("".join(json.dumps(cells) + "\n" for cells in val), encoding="utf-8")
    (root / "prompt.json").write_text(json.dumps({"idk": ["I cannot help with that."]}), encoding="utf-8")


def write_records(place: Path, name: str, records: Records) -> None:
    """Write one of the splits."""
    text = json.dumps(records, ensure_ascii=False, indent=1)
    (place / "dataset" / f"{name}.json").write_text(text, encoding="utf-8")


def _changed(change: Callable[[Records], object]) -> Break:
    def apply(place: Path) -> None:
        records = json.loads((place / "dataset" / "all_train.json").read_text(encoding="utf-8"))
        change(records)
        write_records(place, "all_train", records)

    return apply


def _text(name: str, text: str) -> Break:
    return lambda place: (place / "dataset" / name).write_text(text, encoding="utf-8") and None


def _damaged(place: Path) -> None:
    (place / "dataset" / "img" / "Weapon" / "train_1.png").write_bytes(b"no picture")


BROKEN: dict[str, tuple[Break, str]] = {
    "missing file": (lambda place: (place / "dataset" / "all_val.json").unlink(), r"has no all_val\.json\. Expected "),
    "missing column": (
        _changed(lambda rows: rows[1].pop("SDImage_path")),
        r"all_train\.json record 2: SDImage_path is missing",
    ),
    "missing pairs": (_changed(lambda rows: rows[2].pop("unsafe_pairs")), r"record 3: unsafe_pairs is missing"),
    "missing answer": (
        _changed(lambda rows: rows[0]["unsafe_pairs"][2].pop("model_response")),
        r"record 1: unsafe_pairs\[3\]\.model_response is missing",
    ),
    "missing benign pair": (
        _changed(lambda rows: [rows[0].pop(key) for key in list(rows[0]) if key.startswith("Unharm")]),
        r"record 1: none of UnharmPair_text1, .* is there",
    ),
    "benign pair without answer": (
        _changed(lambda rows: rows[0]["UnharmPair_text1"].pop("Prediction")),
        r"record 1: UnharmPair_text1\.Prediction is missing",
    ),
    "missing image": (
        _changed(lambda rows: rows[1].update(image_path="dataset/img/Weapon/none.png")),
        r"record 2: image dataset/img/Weapon/none\.png is missing",
    ),
    "category against folder": (
        _changed(lambda rows: rows[1].update(category="Privacy")),
        r"record 2: category says Privacy, the folder of .* says Weapon",
    ),
    "unknown category": (
        _changed(lambda rows: rows[1].update(category="Weapons")),
        r"record 2: Unknown category 'Weapons'\. Did you mean Weapon",
    ),
    "bad JSON": (_text("all_train.json", "[{"), r"all_train\.json is no valid JSON"),
    "bad JSON line": (_text("all_val.json", '{"image_path": 1}\n{'), r"all_val\.json line 2 is no valid JSON"),
    "no list": (_text("all_train.json", "3"), r"all_train\.json must hold a list of rows"),
    "unreadable image": (_damaged, r"record 2: image .*train_1\.png cannot be decoded"),
    "wrong split name": (
        lambda place: (place / "dataset" / "all_train.json").rename(place / "dataset" / "train.json"),
        r"has no all_train\.json\. .*found .*train\.json",
    ),
}
