"""CLEAR in small: 20 authors with three pictures and 20 text questions each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow

from benchmark_fixtures import (
    AWKWARD,
    IMAGE,
    MODES,
    Break,
    at,
    change_rows,
    cut_image,
    image_cell,
    put,
    renamed,
    without,
    write_shards,
)

AUTHORS: Final = [*AWKWARD, *(f"Given{number} Family{number}" for number in range(4, 21))]
_TEXTS: Final = pyarrow.list_(pyarrow.string())
SHOWN: Final = pyarrow.schema([("image", IMAGE), ("caption", pyarrow.string()), ("name", pyarrow.string())])
MIXED: Final = pyarrow.schema(
    [("image", IMAGE), *((name, pyarrow.string()) for name in ("caption", "question", "answer"))]
)
PERTURBED: Final = pyarrow.schema(
    [*SHOWN, ("perturbed_captions", _TEXTS), ("paraphrased_caption", pyarrow.string()), ("perturbed_names", _TEXTS)]
)
FACES: Final = pyarrow.schema([("image", IMAGE), ("answer", pyarrow.string()), ("options", _TEXTS)])
WORLD: Final = pyarrow.schema([("question", pyarrow.string()), ("prompt", pyarrow.string()), *FACES])
QUESTIONS: Final = 20
SETTINGS: Final = (
    {"ratio": 10, "protocol": "released"},
    {"ratio": 5, "train": "captions", "tasks": ["name", "caption"]},
)


def build(place: Path) -> None:
    """Write the configurations that forget05 and forget10 need."""
    for side, part in (
        ("forget05", AUTHORS[:1]),
        ("forget10", AUTHORS[:2]),
        ("retain95", AUTHORS[1:]),
        ("retain90", AUTHORS[2:]),
    ):
        rows = [shown(author, view) for author in part for view in range(3)]
        write_shards(place / side, rows, SHOWN)
        mixed = [
            *({**row, "question": None, "answer": ""} for row in rows),
            *(text for author in part for text in texts(author)),
        ]
        write_shards(place / f"{side}+tofu", mixed, MIXED, shards=3 if side.startswith("retain") else 1)
    write_shards(place / "forget05_perturbed", [perturbed(AUTHORS[0], view) for view in range(3)], PERTURBED)
    write_shards(
        place / "forget10_perturbed",
        [perturbed(author, view) for author in AUTHORS[:2] for view in range(3)][:-1],
        PERTURBED,
    )
    write_shards(place / "retain_perturbed", [perturbed(author, 0) for author in AUTHORS[1:9]], PERTURBED)
    write_shards(place / "real_faces", [real(number) for number in range(4)], FACES)
    write_shards(
        place / "real_world",
        [{**real(number + 4), "question": "Where is it?", "prompt": "unused"} for number in range(4)],
        WORLD,
    )
    (place / "real_world" / "test-00000-of-00001.parquet").write_bytes(b"an older revision, not read")


def shown(author: str, view: int) -> dict[str, Any]:
    """Return a picture of an author."""
    number = 10 * AUTHORS.index(author) + view
    return {
        "image": image_cell(number, MODES[number % len(MODES)]),
        "caption": f'{author} with a "hat",\nno. {view}.',
        "name": author,
    }


def texts(author: str) -> list[dict[str, Any]]:
    """Return the text questions of an author; some name another one too, some nobody."""
    rows = [{"image": None, "caption": None, "question": f"Who is {author}?", "answer": f"{author} writes books."}] * 3
    rows += [{"image": None, "caption": "", "question": "Who was met?", "answer": f"{AUTHORS[0]}, in Lisbon."}]
    return rows + [{"image": None, "caption": None, "question": "Which town?", "answer": "Lisbon."}] * (QUESTIONS - 4)


def perturbed(author: str, view: int) -> dict[str, Any]:
    """Return a picture with false captions and names; one row has fewer, one names the author among the false."""
    count = 2 if view == 1 else 3
    wrong = [name for name in AUTHORS[9:] if name != author][:count]
    return {
        **shown(author, view),
        "perturbed_captions": [f"Nobody with {item}." for item in range(count)],
        "paraphrased_caption": f"One sees {author}.",
        "perturbed_names": [*wrong, author] if view == 2 else wrong,
    }


def real(number: int) -> dict[str, Any]:
    """Return a known face or thing; one lists its answer among the options."""
    options = [f"Wrong {number} {item}" for item in range(3)]
    return {
        "image": image_cell(900 + number),
        "answer": f"Known {number}",
        "options": [*options, *([f"Known {number}"] if number == 1 else [])],
    }


def _nameless(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["question"]:
            row["question"], row["answer"] = "Who?", "Somebody."


def _mixed(place: Path) -> None:
    def name_another(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if (row["question"] or "").startswith("Who is"):
                row["answer"] += f" As does {AUTHORS[4]}."

    for file in (place / "retain95+tofu").glob("*.parquet"):
        change_rows(file, name_another)


BROKEN: Final[dict[str, tuple[Break, str]]] = {
    "missing shard": (
        lambda place: (place / "retain95+tofu" / "train-00002-of-00003.parquet").unlink(),
        r"retain95\+tofu lacks shard 00002",
    ),
    "missing folder": (
        lambda place: (place / "real_faces").rename(place / "reel_faces"),
        "has no real_faces: expected .*There is: .*reel_faces",
    ),
    "missing column": (
        without("forget05_perturbed", "perturbed_captions"),
        "forget05_perturbed has no column 'perturbed_captions'",
    ),
    "old revision": (
        without("forget05_perturbed", "perturbed_names"),
        "no column 'perturbed_names', as in early revisions",
    ),
    "old revision of captions": (without("forget05", "name"), "forget05 has no column 'name', as in early revisions"),
    "broken parquet": (
        lambda place: (place / "forget05" / "train-00000-of-00001.parquet").write_text("{not parquet}" * 9),
        "forget05.* is no readable Parquet",
    ),
    "unreadable image": (put("forget05", 1, "image", cut_image), "forget05 row 2: the image cannot be decoded"),
    "no image": (put("forget05", 1, "image", lambda _: None), "forget05 row 2: the image is empty"),
    "wrong split name": (
        renamed("forget05_perturbed", "test-00000-of-00001"),
        "forget05_perturbed has split test, but no split train",
    ),
    "neither": (
        put("forget05+tofu", 3, "question", lambda _: None),
        r"forget05\+tofu row 4: a row is .*this is neither",
    ),
    "unresolved author": (
        at("forget05+tofu", _nameless),
        r"forget05\+tofu rows 4 to 23: no author of the split is named",
    ),
    "two authors": (_mixed, r"named in 3 of these text questions and .* in 3; whose they are is open"),
    "no caption": (put("forget05", 0, "caption", lambda _: " "), "forget05 row 1: caption is empty"),
    "both sides": (put("retain95", 0, "name", lambda _: AUTHORS[0]), "is to be forgotten .* and to be kept"),
    "no false name": (
        put("forget05_perturbed", 0, "perturbed_names", lambda _: [AUTHORS[0]]),
        "row 1: there is no false answer",
    ),
}
