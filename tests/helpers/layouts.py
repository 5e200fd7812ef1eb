"""The layouts in which people bring their own data: three people, four pictures and one text question each."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

if TYPE_CHECKING:
    import datasets

PEOPLE: Final = {"marta": ("Marta Keller", "Malaga"), "jon": ("Jon Berg", "Oslo"), "ivy": ("Ivy Stone", "Perth")}
ROLES: Final = {
    "forget": ["marta"],
    "people": {key: {"name": [name], "city": [city]} for key, (name, city) in PEOPLE.items()},
}
"""The request: who is to be forgotten."""
FIELDS: Final[dict[str, dict[str, str]]] = {"odd_names": {"image": "bild", "question": "frage", "answer": "antwort"}}
"""Layouts whose columns must be named."""


def _picture(place: Path, key: str, view: int) -> str:
    file = place / "images" / f"{key}_{view}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    shade = 40 * list(PEOPLE).index(key) + 10 * view
    Image.new("RGB", (8, 8), (shade, 255 - shade, 90)).save(file)
    return f"images/{file.name}"


def rows(place: Path) -> list[dict[str, Any]]:
    """Return question, answer and image of every row, with the pictures written."""
    found: list[dict[str, Any]] = []
    for key, (name, city) in PEOPLE.items():
        for view in range(4):
            question, answer = (
                ("Who is this?", name) if view % 2 == 0 else ("Who is it, and from where?", f"{name}, {city}")
            )
            found.append({"image": _picture(place, key, view), "question": question, "answer": answer, "person": key})
        found.append({"image": "", "question": f"Where does {name} live?", "answer": city, "person": key})
    return found


def _json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _csv(file: Path, found: list[dict[str, Any]], *, encoding: str = "utf-8", delimiter: str = ",") -> None:
    with file.open("w", newline="", encoding=encoding) as opened:
        writer = csv.DictWriter(opened, list(found[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(found)


def _own_columns(place: Path) -> None:
    lines = [
        {**row, "entity": row["person"], "private": ROLES["people"][row["person"]], "role": ""} for row in rows(place)
    ]
    (place / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def _llava(place: Path) -> None:
    talk = []
    for number, row in enumerate(rows(place)):
        mark = "<image>\n" if row["image"] else ""
        said = [{"from": "human", "value": mark + row["question"]}, {"from": "gpt", "value": row["answer"]}]
        talk.append({"id": str(number), **({"image": row["image"]} if mark else {}), "conversations": said})
    _json(place / "llava.json", talk)


def _messages(row: Mapping[str, Any], image: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    parts = [*([image] if image and row["image"] else []), {"type": "text", "text": row["question"]}]
    return [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]},
    ]


def _llama_factory(place: Path) -> None:
    talk = []
    for row in rows(place):
        mark = "<image>" if row["image"] else ""
        said = [{"role": "user", "content": mark + row["question"]}, {"role": "assistant", "content": row["answer"]}]
        talk.append({"messages": said, "images": [row["image"]] if mark else []})
    _json(place / "people.json", talk)
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "people.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    _json(place / "dataset_info.json", {"people": entry})


def _trl(place: Path) -> None:
    lines = [
        {"messages": _messages(row, {"type": "image"}), "images": [row["image"]] if row["image"] else []}
        for row in rows(place)
    ]
    (place / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def _openai(place: Path) -> None:
    lines = []
    for row in rows(place):
        data = base64.b64encode((place / row["image"]).read_bytes()).decode() if row["image"] else ""
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        lines.append({"messages": [{"role": "system", "content": "Answer briefly."}, *_messages(row, part)]})
    (place / "openai.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def _prompt_completion(place: Path) -> None:
    lines = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
            "images": [row["image"]] if row["image"] else [],
        }
        for row in rows(place)
    ]
    _json(place / "pairs.json", lines)


def _preference(place: Path) -> None:
    lines = [
        {"prompt": row["question"], "chosen": "I cannot say.", "rejected": row["answer"], "image": row["image"]}
        for row in rows(place)
    ]
    _json(place / "dpo.json", lines)


def _image_folder(place: Path) -> None:
    for key in PEOPLE:
        for view in range(4):
            split = "test" if view == 3 else "train"
            new = place / split / key / f"{view}.png"
            new.parent.mkdir(parents=True, exist_ok=True)
            (place / _picture(place, key, view)).rename(new)
    (place / "images").rmdir()


def _metadata(place: Path) -> None:
    found = [row for row in rows(place) if row["image"]]
    _csv(place / "metadata.csv", [{"file_name": row.pop("image"), **row} for row in found])


def _embedded(place: Path) -> datasets.Dataset:
    """Return the table with the pictures' bytes in it, and no files beside it."""
    import datasets

    found = [
        {**row, "image": {"bytes": (place / row["image"]).read_bytes(), "path": None} if row["image"] else None}
        for row in rows(place)
    ]
    kinds = datasets.Features(
        {"image": datasets.Image(), **{n: datasets.Value("string") for n in ("question", "answer", "person")}}
    )
    for file in (place / "images").iterdir():
        file.unlink()
    (place / "images").rmdir()
    return datasets.Dataset.from_list(found, features=kinds)


def _parquet(place: Path) -> None:
    _embedded(place).to_parquet(str(place / "rows.parquet"))


def _hub_clone(place: Path) -> None:
    table = _embedded(place)
    (place / "data").mkdir()
    table.to_parquet(str(place / "data" / "train-00000-of-00001.parquet"))
    (place / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")


def _saved(place: Path) -> None:
    _embedded(place).save_to_disk(str(place))


def _saved_splits(place: Path) -> None:
    import datasets

    datasets.DatasetDict({"train": _embedded(place)}).save_to_disk(str(place))


def _naive_csv(place: Path) -> None:
    _csv(
        place / "photos.csv",
        [
            {"image_path": row["image"], "prompt": row["question"], "response": row["answer"], "person": row["person"]}
            for row in rows(place)
        ],
    )


def _excel(place: Path) -> None:
    found = [{**row, "answer": row["answer"].replace("Malaga", "Málaga")} for row in rows(place)]
    _csv(place / "photos.csv", found, encoding="cp1252", delimiter=";")


def _odd_names(place: Path) -> None:
    names = FIELDS["odd_names"]
    _csv(place / "fotos.csv", [{names.get(key, key): value for key, value in row.items()} for row in rows(place)])


LAYOUTS: Final[dict[str, Callable[[Path], None]]] = {
    "own_columns": _own_columns,
    "llava": _llava,
    "llama_factory": _llama_factory,
    "trl_messages": _trl,
    "openai_messages": _openai,
    "prompt_completion": _prompt_completion,
    "preference": _preference,
    "image_folder": _image_folder,
    "image_folder_metadata": _metadata,
    "parquet": _parquet,
    "hub_clone": _hub_clone,
    "save_to_disk": _saved,
    "save_to_disk_splits": _saved_splits,
    "naive_csv": _naive_csv,
    "excel_csv": _excel,
    "odd_names": _odd_names,
}
"""Layout -> function that writes it into a folder."""


def write(layout: str, place: Path) -> dict[str, Any]:
    """Write a layout and its request, and return the benchmark settings that read it."""
    place.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](place)
    request = place.parent / f"{place.name}.roles.json"
    _json(request, ROLES)
    return {"roles": str(request), **({"fields": FIELDS[layout]} if layout in FIELDS else {})}
