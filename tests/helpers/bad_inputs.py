"""Tables of bad inputs: what it is, how it is made, what the message must contain."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from helpers.evaluated import make_run

POINTER: Final = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
DEEP: Final = 30_000
"""Levels of nesting that are a crash for who does not count them."""
HALF: Final = "\\ud83d"
"""Half an emoji, as JSON writes it."""


@dataclass(frozen=True)
class Bad:
    """A bad input."""

    kind: str
    make: Callable[[Path], Any]
    """Writes it below a folder; for runs, returns the words of the command."""
    says: tuple[str, ...]
    """What the message must contain."""
    data: str = "d"
    """Where the data are, below the folder."""


def row(**cells: Any) -> dict[str, Any]:
    """Return a row about Ada, who is to be forgotten."""
    base = {"id": "a", "image": "a.png", "role": "forget", "entity": "ada", "question": "Who is this?"}
    return base | {"answer": "Ada Lovell", "private": {"name": "Ada Lovell"}} | cells


def kept() -> dict[str, Any]:
    """Return a row about Bo, who stays."""
    return row(id="b", image="b.png", role="retain", entity="bo", answer="Bo Winter", private={"name": "Bo Winter"})


def folder(place: Path) -> Path:
    """Make the folder of the data with two pictures."""
    where = place / "d"
    where.mkdir(exist_ok=True)
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (32, 32), color).save(where / name)
    return where


def jsonl(place: Path, *rows: dict[str, Any] | str) -> None:
    """Write data.jsonl; texts are written as they are."""
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows]
    (folder(place) / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def good(place: Path) -> None:
    """Write data without a fault."""
    jsonl(place, row(), kept())


def cells(kind: str, /, *says: str, **changed: Any) -> Bad:
    """Return a bad row of an own folder."""
    return Bad(kind, lambda place: jsonl(place, row(**changed), kept()), ("row 1", *says))


def file(kind: str, name: str, content: bytes | str, *says: str) -> Bad:
    """Return a bad table."""

    def make(place: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder(place) / name).write_bytes(data)

    return Bad(kind, make, says)


def picture(kind: str, save: Callable[[Path], object], *says: str) -> Bad:
    """Return data whose first picture is bad."""

    def make(place: Path) -> None:
        good(place)
        save(place / "d" / "a.png")

    return Bad(kind, make, ("row 1", "a.png", *says))


def talk(kind: str, says: Sequence[str], turns: Any, **changed: Any) -> Bad:
    """Return a bad conversation."""

    def make(place: Path) -> None:
        base = {key: value for key, value in row(**changed).items() if key not in ("question", "answer")}
        jsonl(place, {**base, "conversations": turns}, {**kept(), "conversations": pair("Who?", "Bo")})

    return Bad(kind, make, ("row 1", *says))


def pair(question: str, answer: str) -> list[dict[str, str]]:
    """Return a turn of each speaker."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _csv(place: Path, rows: list[list[str]], **options: Any) -> None:
    with (folder(place) / "data.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows(rows)


def _twice(place: Path) -> None:
    head, line = list(row()), [str(cell) for cell in row().values()]
    _csv(place, [[*head, "answer"], [*line, "Somebody else"]])


def _parquet(place: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder(place) / "data.parquet")


def _bomb(path: Path) -> None:
    """Write a PNG of 60,000 x 60,000 pixels in some hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def _cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype="uint8")).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def _text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _without(*names: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        jsonl(place, *({key: value for key, value in one.items() if key not in names} for one in (row(), kept())))

    return make


NAN: Final = float("nan")

DATA: Final = (
    # tables
    Bad("no such folder", lambda place: None, ("No data at", "expected a folder")),
    Bad("empty folder", lambda place: (place / "d").mkdir(), ("Nothing that unsee knows lies at",)),
    Bad(
        "two tables",
        lambda place: (
            good(place),
            (place / "d" / "more.csv").write_text("a,b\n"),
            (place / "d" / "data.json").write_text("[]"),
        ),
        ("must hold one table", "data.json, data.jsonl"),
    ),
    Bad(
        "a file of another type",
        lambda place: ((place / "d").mkdir(), (place / "d" / "x.txt").write_text("x")),
        ("is no table unsee reads", ".jsonl"),
        "d/x.txt",
    ),
    Bad(
        "a device without end",
        lambda place: None,
        ("is a device or a pipe", "Give a folder or a file"),
        "../../../../../../../../dev/zero",
    ),
    file("empty jsonl", "data.jsonl", "", "has no rows"),
    file("empty csv", "data.csv", "", "has no rows"),
    file("csv with a header only", "data.csv", ",".join(row()), "has no rows"),
    file("empty json list", "data.json", "[]", "has no rows"),
    file("json that is a number", "data.json", "7", "must hold a list of rows, got int"),
    file("json that is one object", "data.json", '{"rows": []}', "must hold a list of rows, got dict"),
    file("json cut off", "data.json", '[{"image": "a.png", ', "data.json is no valid JSON"),
    file("jsonl cut off", "data.jsonl", json.dumps(row()) + '\n{"image": ', "line 2 is no valid JSON"),
    file("jsonl with a list", "data.jsonl", "[1, 2]\n", "row 1 must be an object with named columns, got [1, 2]"),
    file("jsonl with text", "data.jsonl", '"hello"\n', "must be an object with named columns"),
    file(
        "jsonl that is not UTF-8",
        "data.jsonl",
        b'{"image": "\xff"}\n',
        "is not UTF-8 text (byte 11)",
        "save it as UTF-8",
    ),
    file("jsonl of another program", "data.jsonl", b"\x1f\x8b\x08\x00\x00", "is not UTF-8 text"),
    file("json nested deeply", "data.json", "[" * DEEP + "]" * DEEP, "nested too deeply", "at most 100 levels"),
    file("jsonl nested deeply", "data.jsonl", '{"image": ' * DEEP + "1" + "}" * DEEP, "line 1 is nested too deeply"),
    file("jsonl nested less deeply", "data.jsonl", '{"image": ' * 300 + "1" + "}" * 300, "line 1 is nested too deeply"),
    file(
        "a name twice in an object",
        "data.jsonl",
        '{"answer": "Ada", "answer": "Bo"}\n',
        "'answer' occurs twice",
        "keep one",
    ),
    file("a name twice deeper", "data.jsonl", '{"private": {"name": "A", "name": "B"}}\n', "'name' occurs twice"),
    file(
        "an integer of 5,000 digits", "data.jsonl", '{"answer": ' + "1" * 5000 + "}\n", "line 1", "thousands of digits"
    ),
    file("a git-lfs pointer as jsonl", "data.jsonl", POINTER, "is a git-lfs pointer", "git lfs pull"),
    file("a git-lfs pointer as json", "data.json", POINTER, "is a git-lfs pointer", "hf download"),
    file("a git-lfs pointer as csv", "data.csv", POINTER, "is a git-lfs pointer"),
    file("a git-lfs pointer as parquet", "data.parquet", POINTER, "is a git-lfs pointer"),
    file("parquet that is none", "data.parquet", "PAR1 hello", "is no readable Parquet file"),
    file("csv with an open quote", "data.csv", ",".join(row()) + '\na,"b', "Cannot read"),
    file("csv with too few cells", "data.csv", ",".join(row()) + "\na,b\n", "row 1 has more or fewer cells", "','"),
    file(
        "csv with too many cells",
        "data.csv",
        ";".join(row()) + "\n" + ";".join("abcdefgh") + "\n",
        "row 1 has more or fewer cells",
        "';'",
        "quotes",
    ),
    file("csv of no encoding", "data.csv", b"image,\x81\x8d\n\x90", "is not UTF-8 text", "Windows-1252"),
    file("csv with UTF-16 cut off", "data.csv", b"\xff\xfea\x00,", "UTF-8"),
    Bad(
        "parquet with a column twice",
        lambda place: pyarrow.parquet.write_table(
            pyarrow.table([["a"], ["b"]], names=["answer", "answer"]), folder(place) / "data.parquet"
        ),
        ("has column 'answer' twice",),
    ),
    Bad("csv with a column twice", _twice, ("has column 'answer' twice", "rename or remove")),
    Bad(
        "csv with NUL in a cell",
        lambda place: _csv(place, [list(row()), ["a", "a.png", "forget", "ada", "Who?", "A\0da", "Ada"]]),
        ("row 1", "answer holds the control character U+0000"),
    ),
    Bad("a missing column", _without("role"), ("has no column 'role'", "It needs image, question")),
    Bad("all columns missing", lambda place: jsonl(place, {"x": 1}), ("has no column 'image', 'question', 'answer'",)),
    Bad(
        "a column under another name",
        lambda place: jsonl(place, {**{k: v for k, v in row().items() if k != "image"}, "pic_image": "a.png"}),
        ("has no column 'image'", "Is 'pic_image' meant for 'image'?", "--fields image=pic_image"),
    ),
    Bad(
        "a column misspelt",
        lambda place: jsonl(place, {**{k: v for k, v in row().items() if k != "answer"}, "Answre": "x"}),
        ("has no column 'answer'", "Is 'Answre' meant for 'answer'?"),
    ),
    # cells
    cells("answer empty", "the answer is empty", answer=""),
    cells("answer of blanks", "the answer is empty", answer="  \n"),
    cells("answer null", "the answer is empty", answer=None),
    cells("answer NaN", "the answer is empty", answer=NAN),
    cells("question NaN", "the question is empty", question=NAN),
    cells("entity NaN", "the entity is empty", entity=NAN),
    cells("role NaN", "the role is empty", role=NAN),
    cells("answer infinite", "answer must be text, got inf", answer=float("inf")),
    cells("answer true", "answer must be text, got True", answer=True),
    cells("answer a list", "answer must be text", answer=["Ada"]),
    cells("answer a mapping", "answer must be text", answer={"text": "Ada"}),
    cells("question a list", "question must be text", question=["Who?"]),
    cells("entity a list", "entity must be text", entity=["ada"]),
    cells("a huge list as answer", "answer must be text", answer=list(range(100_000))),
    cells("role unknown", "Unknown role 'forgett'", "Did you mean forget", role="forgett"),
    cells("role a huge text", "Unknown role", role="x" * 100_000),
    cells("role of text with an image", "has no image by definition", role="forget_text"),
    cells("unseen without an image", "a row of role unseen needs an image", role="unseen", image=""),
    cells("unseen in train", "never trained on", role="unseen", split="train"),
    cells("split unknown", "Unknown split 'trein'", split="trein"),
    cells("kind unknown", "Unknown kind 'opne'", "Did you mean open", kind="opne"),
    cells("image missing", "none.png is missing", image="none.png"),
    cells("image a folder", "is missing", image="."),
    cells("image a number", "image must be one path, got 3", image=3),
    cells("image a mapping", "image must be one path", image={"url": "a.png"}),
    cells("two images", "image must be one path, got 2", "a row for each", image=["a.png", "b.png"]),
    cells("two images in images", "image must be one path, got 2", image="", images=["a.png", "b.png"]),
    cells("image and another in images", "image must be one path, got 2", images=["b.png"]),
    cells("image with NUL", "image holds the control character U+0000", image="a\0.png"),
    cells("an image mark without picture", "1 <image> mark", "has no picture", image="", question="<image> Who?"),
    cells("more image marks than pictures", "2 <image> marks", "1 picture", question="<image><image> Who?"),
    cells("an image mark in an answer", "the answer holds <image>", answer="See figure (<image>) ."),
    cells("NUL in a question", "question holds the control character U+0000 at place 4", question="Who\0?"),
    cells("escape in an id", "id holds the control character U+001B", id="a\x1b]0;owned\x07"),
    cells("bell in an entity", "entity holds the control character U+0007", entity="ada\x07x"),
    cells("control character in private", "private holds the control character", private={"name": "A\x01"}),
    Bad(
        "half a character in a question",
        lambda place: jsonl(place, json.dumps(row(question="Who?")).replace("Who?", HALF), kept()),
        ("row 1", "question holds half a character"),
    ),
    Bad(
        "half a character in an answer",
        lambda place: jsonl(place, json.dumps(row(answer="Who?")).replace("Who?", HALF), kept()),
        ("row 1", "answer holds half a character"),
    ),
    Bad(
        "half a character in an id",
        lambda place: jsonl(place, json.dumps(row(id="Who?")).replace("Who?", HALF), kept()),
        ("row 1", "id holds half a character"),
    ),
    Bad(
        "half a character in private",
        lambda place: jsonl(place, json.dumps(row(private=["Whom?"])).replace("Whom?", HALF), kept()),
        ("row 1", "private holds half a character"),
    ),
    Bad(
        "half a character in options",
        lambda place: jsonl(
            place, json.dumps(row(kind="choice", options=["Whom?", "b"], answer="A")).replace("Whom?", HALF), kept()
        ),
        ("row 1", "half a character"),
    ),
    cells("invisible answer", "the answer is empty", answer="\u200b\u200d"),
    cells("invisible question", "the question is empty", question="\u2060 \n"),
    cells("terminal control in an id", "id holds the control character U+009B", id="a\x9b31m"),
    cells("delete in an answer", "answer holds the control character U+007F", answer="A\x7fda"),
    cells("the same option twice", "options A and C are the same", kind="choice", options=["x", "y", "X"], answer="A"),
    cells("options without a kind", "there are options but no kind", options=["x", "y"], answer="A"),
    cells("private no JSON", "private looks like JSON but is not", private="{broken"),
    cells("private nested deeply", "private looks like JSON but is not", private="[" * DEEP),
    cells("private true", "private must be text", private=True),
    cells("private a mapping in a mapping", "private.city must be text", private={"city": {"a": "b"}}),
    cells("private with a name twice", "'name' occurs twice", private='{"name": "A", "name": "B"}'),
    cells("visible text", "visible must be a mapping", visible="red"),
    cells("visible with a list", "hair must be text", visible={"hair": ["red"]}),
    cells("choice without options", "a choice answer is the letter", "0 options", kind="choice", answer="A"),
    cells("choice beyond its options", "got 'C' and 2 options", kind="choice", options=["x", "y"], answer="C"),
    cells("choice by text", "Write 'B'", kind="choice", options=["baker", "pilot"], answer="pilot"),
    cells("choice by a small letter", "Write 'B'", kind="choice", options=["baker", "pilot"], answer="b"),
    cells("choice of 30", "at most 26 options", kind="choice", options=[f"o{n}" for n in range(30)], answer="A"),
    cells("an empty option", "option A is empty", kind="choice", options=["", "pilot"], answer="A"),
    cells("NaN as option", "option B is empty", kind="choice", options=["baker", NAN], answer="A"),
    cells("options as a mapping by name", "must be named by letter", kind="choice", options={"x": "baker"}, answer="A"),
    cells("options a number", "a choice answer is the letter", kind="choice", options=7, answer="C"),
    cells("options with a list", "options must be text", kind="choice", options=[["x"], "y"], answer="A"),
    cells("perturbed a mapping", "perturbed must be text", perturbed={"a": "b"}),
    Bad("an id twice", lambda place: jsonl(place, row(), {**kept(), "id": "a"}), ("row 2", "id 'a' is taken by row 1")),
    Bad("nothing to forget", lambda place: jsonl(place, kept()), ("no image is to be forgotten",)),
    Bad(
        "only text to forget",
        lambda place: jsonl(place, row(image=""), kept()),
        ("no image is to be forgotten", "text-only"),
    ),
    Bad(
        "forgotten and kept",
        lambda place: jsonl(place, row(), {**kept(), "entity": "ada"}),
        ("entity 'ada' is to be forgotten (a) and to be kept (b)",),
    ),
    # conversations
    talk("conversation a text", ("conversations must be a list",), "Who?"),
    talk("conversation NaN", ("conversations must be a list",), NAN),
    talk("conversation empty", ("conversations must be a list",), []),
    talk(
        "conversation of three turns",
        ("conversations must be a list",),
        [*pair("Who?", "Ada"), {"from": "human", "value": "And?"}],
    ),
    talk("conversation the wrong way round", ("got speakers ['gpt', 'human']",), pair("Who?", "Ada")[::-1]),
    talk(
        "conversation with a number",
        ("a value that is no text: 3",),
        [{"from": "human", "value": 3}, {"from": "gpt", "value": "A"}],
    ),
    talk(
        "conversation with NaN",
        ("a value that is no text: nan",),
        [{"from": "human", "value": NAN}, {"from": "gpt", "value": "A"}],
    ),
    talk(
        "conversation with a mark and no picture",
        ("1 <image> mark", "has no picture"),
        pair("<image>\nWho?", "Ada"),
        image="",
    ),
    talk("conversation with two marks", ("2 <image> marks",), pair("<image>\n<image>\nWho?", "Ada")),
    talk(
        "conversation about two pictures",
        ("image must be one path, got 2",),
        pair("<image>\nWho?", "Ada"),
        image="",
        images=["a.png", "b.png"],
    ),
    talk("conversation with a mark in an answer", ("the answer holds <image>",), pair("Who?", "<image>")),
    talk("conversation without an answer", ("the answer is empty",), pair("Who?", " ")),
    # pictures
    picture("a picture that is text", _text("hello"), "cannot be decoded", "PNG, JPEG"),
    picture("a picture of no bytes", _text(b""), "cannot be decoded"),
    picture("a picture cut off", _cut, "cannot be decoded"),
    picture("a picture that is a git-lfs pointer", _text(POINTER), "is a git-lfs pointer"),
    picture(
        "a picture that is PostScript",
        _text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        "cannot be decoded",
        "PNG, JPEG",
    ),
    picture("a picture that is a PDF", _text(b"%PDF-1.4\n%\xe2\xe3"), "cannot be decoded"),
    picture("a picture that is SVG", _text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "cannot be decoded"),
    picture(
        "a picture in another format", lambda path: Image.new("RGB", (4, 4)).save(path, "PPM"), "cannot be decoded"
    ),
    picture("a picture of 3,600 million pixels", _bomb, "cannot be decoded", "decompression bomb"),
    picture(
        "a picture of floats",
        lambda path: Image.fromarray(np.ones((4, 4), "f4") / 2).save(path, "TIFF"),
        "has floating-point values",
        "8-bit PNG",
    ),
    picture(
        "a picture of large integers",
        lambda path: Image.fromarray(np.full((4, 4), 70_000, "i4")).save(path, "TIFF"),
        "has integers from 70000 to 70000",
        "8-bit",
    ),
    picture(
        "a picture of negative integers",
        lambda path: Image.fromarray(np.full((4, 4), -5, "i4")).save(path, "TIFF"),
        "has integers from -5",
    ),
    picture(
        "a picture of small 32-bit integers",
        lambda path: Image.fromarray(np.full((4, 4), 200, "i4")).save(path, "TIFF"),
        "of which white is not known",
    ),
    Bad(
        "a picture in parquet that is none",
        lambda place: _parquet(place, [row(image={"bytes": b"hello", "path": "a.png"}, private="Ada")]),
        ("row 1", "the image in the table cannot be decoded"),
    ),
)
"""Data that cannot be used."""


def run(*words: str) -> Callable[[Path], list[str]]:
    """Return a command about the lab."""
    return lambda place: ["forget", "--model", "lab", "--data", "lab", "--method", "ga", "--out", "out", *words]


def yaml(text: str | bytes, *words: str) -> Callable[[Path], list[str]]:
    """Return a command with a run file."""

    def make(place: Path) -> list[str]:
        (place / "r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["forget", "r.yaml", *words]

    return make


def grid(text: str) -> Callable[[Path], list[str]]:
    """Return a sweep."""

    def make(place: Path) -> list[str]:
        (place / "g.yaml").write_text(text)
        return ["sweep", "g.yaml", "--out", "s"]

    return make


LOOP: Final = "eval: &e {limit: *e}\n"
BOMB: Final = "x0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)

RUNS: Final = (
    Bad("NUL in --out", run("--out", "a\0b"), ("holds the control character U+0000",)),
    Bad("NUL in --data", lambda place: ["check", "a\0b"], ("holds the control character U+0000",)),
    Bad(
        "NUL in out of a run file",
        yaml('model: lab\ndata: lab\nmethod: ga\nout: "a\\0b"\n'),
        ("out holds the control character U+0000",),
    ),
    Bad(
        "half a character in a run file",
        yaml('model: lab\ndata: lab\nmethod: ga\nout: "a\\ud800b"\n'),
        ("out holds half a character",),
    ),
    Bad("a run file of aliases", yaml(BOMB), ("r.yaml is no valid YAML", "more than 100000 values")),
    Bad("a run file that contains itself", yaml(LOOP), ("r.yaml is no valid YAML", "inside of what it repeats")),
    Bad("a run file nested deeply", yaml("[" * DEEP), ("r.yaml is no valid YAML", "nested too deeply")),
    Bad("a run file nested by mappings", yaml("{a: " * 500), ("r.yaml is no valid YAML", "nested too deeply")),
    Bad(
        "a run file with a name twice",
        yaml("model: lab\nmodel: lab-gold\n"),
        ("the name 'model' occurs twice", "line 1"),
    ),
    Bad("a run file with a setting twice", yaml("training: {lr: 1, lr: 2}\n"), ("the name 'lr' occurs twice",)),
    Bad(
        "a run file with a number of 5,000 digits",
        yaml(f"seed: {'1' * 5000}\n"),
        ("r.yaml is no valid YAML", "thousands of digits"),
    ),
    Bad("a run file that is a list", yaml("- model: lab\n"), ("must hold a mapping such as `model: lab`, got list",)),
    Bad("a run file that is empty", yaml(""), ("must hold a mapping", "NoneType")),
    Bad("a run file that is binary", yaml(b"\xff\xfe\x00"), ("is not UTF-8 text", "Save it as UTF-8")),
    Bad("a run file with a tab", yaml("model:\tlab\n\tx: 1\n"), ("is no valid YAML",)),
    Bad(
        "a run file with a Python tag",
        yaml("model: !!python/object/apply:os.system [ls]\n"),
        ("is no valid YAML", "could not determine a constructor"),
    ),
    Bad("a run file with NUL", yaml("model: \x00\n"), ("is no valid YAML",)),
    Bad("a run file that is a git-lfs pointer", yaml(POINTER), ("is a git-lfs pointer",)),
    Bad("a run file that is a folder", lambda place: ["forget", "."], ("it is a folder",)),
    Bad("a run file that is not there", lambda place: ["forget", "none.yaml"], ("there is no such file",)),
    Bad("a run file without end", lambda place: ["forget", "/dev/zero"], ("/dev/zero is larger than 64 MiB",)),
    Bad("a run file with an unknown part", yaml("modle: lab\n"), ("Unknown setting", "'modle'", "model")),
    Bad("a run file with a huge name", yaml(f"{'m' * 1000}: lab\n"), ("Unknown setting",)),
    Bad("model a list", yaml("model: [lab]\n"), ("model must be text, got ['lab']",)),
    Bad("model a huge list", yaml(f"model: [{'a,' * 3_000}]\n"), ("model must be text",)),
    Bad("training a list", yaml("training: [1]\n"), ("'training' must be a mapping of settings, got [1]",)),
    Bad("seed a text", yaml("model: lab\nseed: abc\n"), ("seed must be a whole number, got 'abc'",)),
    Bad("--set without a value", run("--set", "training.lr"), ("--set wants NAME=VALUE",)),
    Bad("--set of an unknown setting", run("--set", "training.lrr=1"), ("Unknown setting of training 'lrr'", "lr")),
    Bad(
        "--set of text for a number",
        run("--set", "training.epochs=many"),
        ("epochs must be a whole number, got 'many'",),
    ),
    Bad("--set nested deeply", run("--set", "training.lr=" + "[" * DEEP), ("nested too deeply",)),
    Bad("--set of aliases", run("--set", "training.lr=*a"), ("is no valid YAML", "undefined alias")),
    Bad("--set of a long number", run("--set", f"training.lr={'9' * 5000}"), ("thousands of digits",)),
    Bad(
        "an unknown method",
        lambda place: ["forget", "--model", "lab", "--data", "lab", "--method", "npoo", "--out", "o"],
        ("Unknown", "'npoo'", "npo"),
    ),
    Bad("an unknown command", lambda place: ["forgt"], ("Unknown command 'forgt'", "forget")),
    Bad("an unknown option", run("--epochs", "3"), ("--epochs",)),
    Bad(
        "a model that is not there",
        lambda place: (
            good(place),
            ["forget", "--model", "nowhere/at/all", "--data", "d", "--method", "ga", "--out", "o"],
        )[1],
        ("No model at nowhere/at/all", "expected a run folder"),
    ),
    Bad(
        "a run without data",
        lambda place: ["forget", "--model", "lab", "--method", "ga", "--out", "o"],
        ("names no data",),
    ),
    Bad(
        "check with another setting",
        lambda place: (good(place), ["check", "d", "--set", "training.lr=1"])[1],
        ("sets only the benchmark",),
    ),
    Bad(
        "a grid of 90,000 cells",
        grid(
            "base: {model: lab, data: lab, method: ga}\naxes:\n"
            + "".join(f"  training.{name}: {list(range(1, n + 1))}\n" for name, n in (("lr", 300), ("rank", 300)))
        ),
        ("90,000 cells", "at most 10,000", "training.lr: 300"),
    ),
    Bad(
        "a grid whose axis is a number",
        grid("base: {model: lab}\naxes: {seed: 3}\n"),
        ("'seed' must be a list of values, got 3",),
    ),
    Bad("a grid of aliases", grid(BOMB), ("is no valid YAML",)),
)
"""Commands and run files that cannot be meant."""


def cli(*words: str) -> Callable[[Path], list[str]]:
    """Return a command that needs no files."""
    return lambda place: list(words)


def requests(text: str | bytes) -> Callable[[Path], list[str]]:
    """Return a sequence of deletion requests from this file, on good data."""

    def make(place: Path) -> list[str]:
        good(place)
        (place / "q.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["continual", "--model", "lab", "--data", "d", "--method", "ga", "--requests", "q.yaml", "--out", "o"]

    return make


def experiment(text: str) -> Callable[[Path], list[str]]:
    """Return an import of an experiment."""

    def make(place: Path) -> list[str]:
        (place / "config.yaml").write_text(text)
        return ["import", "config.yaml", "--model", "lab", "--data", "lab"]

    return make


def damaged(name: str, content: str | None, *words: str) -> Callable[[Path], list[str]]:
    """Return a command on an evaluated run folder `r`, one file of which is damaged (None: gone)."""

    def make(place: Path) -> list[str]:
        run = make_run(place / "r", "npo")
        known = json.loads((run / "vocabulary.json").read_text())
        (run / "vocabulary.json").write_text(json.dumps({**known, "visible": {}, "sentences": []}))
        (run / name).parent.mkdir(exist_ok=True)
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_text(content)
        return list(words)

    return make


def sequence(content: str) -> Callable[[Path], list[str]]:
    """Return a comparison of sequences whose result is damaged."""

    def make(place: Path) -> list[str]:
        (place / "s").mkdir()
        (place / "s" / "continual.json").write_text(content)
        return ["continual", "--compare", "s", "--out", "o"]

    return make


JUDGE: Final = ("judge", "r", "--judge", "j", "--url")
PUSH: Final = ("push", "r", "owner/name", "--base", "o/b", "--dry-run")
NPO: Final = ("forget", "--model", "lab", "--data", "lab", "--method", "npo", "--out", "o", "--set")
EVAL: Final = ("eval", "--model", "lab", "--data", "lab", "--out", "o")

MORE: Final = (
    # values
    Bad("rank 10^9", run("--set", "training.rank=1000000000"), ("training.rank must be at most 16,384", "4 to 256")),
    Bad("rank 0", run("--set", "training.rank=0"), ("training.rank must be at least 1, got 0",)),
    Bad("alpha of 400 digits", run("--set", f"training.alpha={'9' * 400}"), ("training.alpha must be at most",)),
    Bad("lr of 400 digits", run("--set", f"training.lr={'9' * 400}"), ("lr must be a number below 1.8e308",)),
    Bad("lr NaN", run("--set", "training.lr=.nan"), ("training.lr must be",)),
    Bad("lr infinite", run("--set", "training.lr=.inf"), ("training.lr must be",)),
    Bad("lr negative", run("--set", "training.lr=-1"), ("training.lr must not be negative, got -1",)),
    Bad("lr a list", run("--set", "training.lr=[1e-4]"), ("lr must be a number, got [0.0001]",)),
    Bad("no new tokens in a verdict", run("--set", "eval.max_new_tokens=0"), ("max_new_tokens must be at least 1",)),
    Bad("clip NaN", run("--set", "training.clip=.nan"), ("training.clip must be",)),
    Bad("weight decay infinite", run("--set", "training.weight_decay=.inf"), ("training.weight_decay must be",)),
    Bad("dropout 2", run("--set", "training.dropout=2"), ("training.dropout must be in [0, 1), got 2",)),
    Bad("epochs 10^30", run("--set", f"training.epochs={10**30}"), ("training.epochs must be at most",)),
    Bad("a batch of 10^12", run("--set", f"training.batch_size={10**12}"), ("training.batch_size must be at most",)),
    Bad("no steps", run("--set", "training.max_steps=0"), ("training.max_steps must be at least 1, or -1",)),
    Bad("a seed below 0", run("--seed", "-1"), ("seed must be", "2**32", "-1")),
    Bad("a seed above 2^32", run("--seed", "99999999999"), ("seed must be", "99999999999")),
    Bad("a seed of 30 digits", run("--set", f"seed={10**30}"), ("seed must be",)),
    Bad("an unknown part", run("--set", "training.parts=[tail]"), ("parts must be one of vision, projector", "'tail'")),
    Bad("no parts", run("--set", "training.parts=[]"), ("training.parts must name some of",)),
    Bad("beta NaN", cli(*NPO, "method.beta=.nan"), ("beta must be",)),
    Bad("beta negative", cli(*NPO, "method.beta=-1"), ("beta must be",)),
    Bad("a retain weight that is infinite", cli(*NPO, "method.retain_weight=.inf"), ("retain_weight must be",)),
    Bad("--set with a name twice", run("--set", "training={lr: 1, lr: 2}"), ("the name 'lr' occurs twice",)),
    Bad("--set that contains itself", run("--set", "training=&a {lr: *a}"), ("inside of what it repeats",)),
    Bad("--set of a bomb", run("--set", f"eval={{{BOMB.replace(chr(10), ', ')}}}"), ("more than 100000 values",)),
    Bad("--set of a long path", run("--set", f"{'a.' * 5000}b=1"), ("nested too deeply",)),
    Bad("--set with NUL", run("--set", "training.adapter=a\0b"), ("U+0000",)),
    Bad("--set with half a character", run("--set", 'training.adapter="\\ud800"'), ("half a character",)),
    Bad(
        "NUL in --model", cli("forget", "--model", "a\0", "--data", "lab", "--method", "ga", "--out", "o"), ("U+0000",)
    ),
    Bad(
        "NUL in --method",
        cli("forget", "--model", "lab", "--data", "lab", "--method", "g\0", "--out", "o"),
        ("U+0000",),
    ),
    Bad("NUL in --out of eval", cli(*EVAL[:-1], "a\0b"), ("U+0000",)),
    Bad(
        "NUL in --requests",
        cli("continual", "--model", "lab", "--data", "lab", "--method", "ga", "--requests", "a\0b", "--out", "o"),
        ("U+0000",),
    ),
    Bad("NUL in a run to compare", cli("compare", "a\0b"), ("U+0000",)),
    Bad("NUL in a grid", cli("sweep", "a\0b", "--out", "s"), ("U+0000",)),
    Bad("NUL in --gold", cli(*EVAL, "--gold", "a\0b"), ("U+0000",)),
    # requests
    Bad(
        "no file of requests",
        cli("continual", "--model", "lab", "--data", "lab", "--method", "ga", "--requests", "n.yaml", "--out", "o"),
        ("No file of requests at n.yaml",),
    ),
    Bad("requests that are empty", requests(""), ("q.yaml must hold a list of requests",)),
    Bad("requests that are a number", requests("requests: 3\n"), ("q.yaml must hold a list of requests",)),
    Bad("requests not in UTF-8", requests(b"- [ad\xffa]\n"), ("q.yaml is not UTF-8", "Save it as UTF-8")),
    Bad("requests nested deeply", requests("[" * DEEP), ("q.yaml is no valid YAML", "nested too deeply")),
    Bad("requests of aliases", requests(BOMB), ("q.yaml is no valid YAML", "100000 values")),
    Bad("requests that are a pointer", requests(POINTER), ("q.yaml is a git-lfs pointer",)),
    Bad(
        "a request with a name twice", requests("- {id: a, id: b, entities: [ada]}\n"), ("the name 'id' occurs twice",)
    ),
    Bad("a request for nobody", requests("- {id: a}\n"), ("request 1 names nobody",)),
    Bad("a request with an empty id", requests("- {id: '', entities: [ada]}\n"), ("`id` must be text",)),
    Bad("a request with a true id", requests("- {id: true, entities: [ada]}\n"), ("`id` must be text", "True")),
    Bad(
        "a request with a deep id",
        requests("- {id: " + "[" * 90 + "]" * 90 + ", entities: [ada]}\n"),
        ("`id` must be text",),
    ),
    Bad("a request with an unknown part", requests("- {id: a, entity: ada}\n"), ("request 1 has entity",)),
    Bad("a request for a mapping", requests("- {id: a, entities: {x: 1}}\n"), ("expected a list of names",)),
    Bad(
        "a request for somebody unknown",
        requests("- {id: a, entities: [adda]}\n"),
        ("'adda' is neither", "Did you mean ada"),
    ),
    Bad(
        "somebody in two requests",
        requests("- {id: a, entities: [ada]}\n- {id: b, entities: [ada]}\n"),
        ("'ada' is in the requests 'a' and 'b'",),
    ),
    Bad(
        "two requests with one id",
        requests("- {id: a, entities: [ada]}\n- {id: A, entities: [bo]}\n"),
        ("have the same id",),
    ),
    Bad(
        "asked for and kept",
        requests("{requests: [{id: a, entities: [ada]}], retain: [ada]}\n"),
        ("ada is to be forgotten and to be kept",),
    ),
    # of open-unlearning
    Bad(
        "an experiment with gamma 0",
        experiment("trainer: {handler: GradDiff, method_args: {gamma: 0}}\n"),
        ("gamma must be above 0, got 0",),
    ),
    Bad(
        "an experiment with gamma in words",
        experiment("trainer: {handler: GradDiff, method_args: {gamma: much}}\n"),
        ("method_args.gamma must be a number, got 'much'",),
    ),
    Bad(
        "an experiment with alpha NaN",
        experiment("trainer: {handler: NPO, method_args: {alpha: .nan}}\n"),
        ("method_args.alpha must be a finite number",),
    ),
    Bad(
        "an experiment with beta in words",
        experiment("trainer: {handler: NPO, method_args: {beta: big}}\n"),
        ("beta must be a number, got 'big'",),
    ),
    Bad(
        "an experiment with a seed in words",
        experiment("trainer: {handler: NPO, args: {seed: lucky}}\n"),
        ("trainer.args.seed must be a whole number, got 'lucky'",),
    ),
    Bad(
        "an experiment with a rate in words",
        experiment("trainer: {handler: NPO, args: {learning_rate: fast}}\n"),
        ("lr must be a number, got 'fast'",),
    ),
    Bad(
        "an experiment with trackers by number",
        experiment("trainer: {handler: NPO, args: {report_to: 3}}\n"),
        ("report_to must be text, got 3",),
    ),
    Bad("an experiment whose trainer is a list", experiment("trainer: [NPO]\n"), ("'trainer' must be a mapping",)),
    Bad("an experiment without a trainer", experiment("model: x\n"), ("is no experiment of open-unlearning",)),
    Bad(
        "an experiment of an unknown trainer",
        experiment("trainer: {handler: NPOO}\n"),
        ("Unknown trainer of open-unlearning", "NPO"),
    ),
    Bad("an experiment of aliases", experiment(BOMB), ("is no valid YAML",)),
    Bad(
        "an experiment with a name twice",
        experiment("trainer: {handler: NPO, handler: GradAscent}\n"),
        ("the name 'handler' occurs twice",),
    ),
    Bad("an experiment that is not there", cli("import", "none.yaml"), ("there is no file none.yaml",)),
    Bad(
        "an import with gamma 0",
        cli("import", "trainer=GradDiff", "trainer.method_args.gamma=0"),
        ("gamma must be above 0",),
    ),
    Bad(
        "an import with a seed in words",
        cli("import", "trainer=NPO", "trainer.args.seed=x"),
        ("seed must be a whole number",),
    ),
    # judges
    Bad("a judge without a host", damaged("x", "", *JUDGE, "http://"), ("name a host",)),
    Bad("a judge by ftp", damaged("x", "", *JUDGE, "ftp://h/v1"), ("must begin with http:// or https://",)),
    Bad("a judge with a line break", damaged("x", "", *JUDGE, "http://h/\nX: y"), ("without spaces or line breaks",)),
    Bad("a judge with NUL", damaged("x", "", *JUDGE, "http://h/\0"), ("U+0000",)),
    Bad("a judge with a port in words", damaged("x", "", *JUDGE, "http://h:port/v1"), ("judge",)),
    Bad("a judge in brackets", damaged("x", "", *JUDGE, "http://[::1/v1"), ("judge",)),
    Bad("a judge with half of what it needs", damaged("x", "", "judge", "r", "--url", "http://h/v1"), ("needs both",)),
    Bad(
        "a judge without its key",
        damaged("x", "", *JUDGE, "http://h/v1", "--key-env", "NO_SUCH_KEY"),
        ("NO_SUCH_KEY is empty",),
    ),
    Bad("a key in the clear", damaged("x", "", *JUDGE, "http://example.org/v1", "--key-env", "PATH"), ("https://",)),
    Bad("a judged run that is not there", cli("judge", "nowhere"), ("nowhere",)),
    Bad(
        "a judged run with damaged answers",
        damaged("responses.jsonl", "[1]\n", "judge", "r"),
        ("responses.jsonl is damaged",),
    ),
    Bad(
        "a judged run with a damaged vocabulary",
        damaged("vocabulary.json", "{}", "judge", "r"),
        ("vocabulary.json is damaged",),
    ),
    Bad(
        "a judged run without a vocabulary", damaged("vocabulary.json", None, "judge", "r"), ("has no vocabulary.json",)
    ),
    # eval
    Bad("no new tokens", cli(*EVAL, "--set", "eval.max_new_tokens=0"), ("max_new_tokens must be at least 1",)),
    Bad("a batch of no questions", cli(*EVAL, "--set", "eval.batch_size=0"), ("batch_size must be at least 1",)),
    Bad("a limit below 0", cli(*EVAL, "--limit", "-1"), ("limit",)),
    Bad("an unknown measure", cli(*EVAL, "--measures", "rouge9"), ("Unknown", "rouge9")),
    Bad("an unknown backend", cli(*EVAL, "--backend", "magic"), ("magic",)),
    Bad("a CLIP model that is not there", cli(*EVAL, "--clip", "no/such/clip"), ("No CLIP model at no/such/clip",)),
    Bad("a gold model that is not there", cli(*EVAL, "--gold", "nowhere"), ("nowhere",)),
    # compare
    Bad("a run to compare that is not there", cli("compare", "nowhere"), ("nowhere",)),
    Bad(
        "compared scores that are text",
        damaged("scores.json", "hello", "compare", "r", "--out", "c"),
        ("scores.json", "expected JSON"),
    ),
    Bad(
        "compared scores that are a list", damaged("scores.json", "[]", "compare", "r", "--out", "c"), ("scores.json",)
    ),
    Bad(
        "a compared score that is a number",
        damaged("scores.json", '{"forget.leak": 3}', "compare", "r", "--out", "c"),
        ("scores.json",),
    ),
    Bad(
        "compared answers cut off",
        damaged("responses.jsonl", '{"id": ', "compare", "r", "--out", "c"),
        ("responses.jsonl is damaged (line 1",),
    ),
    Bad(
        "compared answers nested deeply",
        damaged("responses.jsonl", "[" * DEEP, "compare", "r", "--out", "c"),
        ("responses.jsonl is damaged (line 1",),
    ),
    Bad(
        "a compared record that is a list",
        damaged("judged.json", "[]", "compare", "r", "--out", "c"),
        ("judged.json: expected a mapping",),
    ),
    Bad(
        "a compared record nested deeply",
        damaged("judged.json", "[" * DEEP, "compare", "r", "--out", "c"),
        ("judged.json",),
    ),
    Bad("a compared run file that is a list", damaged("run.yaml", "[]", "compare", "r", "--out", "c"), ("run.yaml",)),
    Bad("a compared run file cut off", damaged("run.yaml", "method: {", "compare", "r", "--out", "c"), ("run.yaml",)),
    Bad(
        "a compared log cut off in the middle",
        damaged("log.jsonl", '{"step": 1\n{"step": 2, "loss": 1}\n', "compare", "r", "--out", "c"),
        ("log.jsonl",),
    ),
    # export
    Bad("an unknown export", damaged("x", "", "export", "r", "--to", "onnx", "--out", "e"), ("'onnx'", "peft")),
    Bad("an export of nothing", cli("export", "nowhere", "--to", "peft", "--out", "e"), ("nowhere",)),
    Bad(
        "exported answers that are damaged",
        damaged("responses.jsonl", "[1]\n", "export", "r", "--to", "open-unlearning", "--out", "e"),
        ("responses.jsonl is damaged",),
    ),
    Bad(
        "exported answers nested deeply",
        damaged("responses.jsonl", "[" * DEEP, "export", "r", "--to", "open-unlearning", "--out", "e"),
        ("responses.jsonl is damaged",),
    ),
    Bad(
        "exported scores that are a list",
        damaged("scores.json", "[]", "export", "r", "--to", "open-unlearning", "--out", "e"),
        ("scores.json is damaged",),
    ),
    Bad(
        "exported scores nested deeply",
        damaged("scores.json", "[" * DEEP, "export", "r", "--to", "open-unlearning", "--out", "e"),
        ("scores.json is damaged",),
    ),
    Bad(
        "an export beside a damaged retain log",
        damaged(
            "log.json",
            "[" * DEEP,
            "export",
            "r",
            "--to",
            "open-unlearning",
            "--out",
            "e",
            "--retain-logs-path",
            "r/log.json",
        ),
        ("log.json",),
    ),
    # push
    Bad("a repository without an owner", damaged("x", "", "push", "r", "name"), ("owner/name",)),
    Bad("a repository of three parts", damaged("x", "", "push", "r", "a/b/c"), ("owner/name",)),
    Bad("a push of nothing", cli("push", "nowhere", "a/b"), ("nowhere",)),
    Bad("a push of a run without run file", damaged("run.yaml", None, *PUSH), ("no run.yaml",)),
    Bad("a push of a run file that is a list", damaged("run.yaml", "[]", *PUSH), ("run.yaml must hold a mapping",)),
    Bad(
        "a push of a run that has not ended",
        damaged("run.yaml", "model: lab\ndata: lab\nmethod: ga\n", *PUSH),
        ("result",),
    ),
    Bad("a push of damaged answers", damaged("responses.jsonl", "[1]\n", *PUSH), ("responses.jsonl is damaged",)),
    Bad("a push with something unknown", damaged("x", "", *PUSH, "--with", "secrets"), ("secrets",)),
    # continual
    Bad("a sequence cut off", sequence('{"runs": ['), ("continual.json is no valid JSON",)),
    Bad("a sequence that is a list", sequence("[]"), ("continual.json must hold one object",)),
    Bad("a sequence nested deeply", sequence("[" * DEEP), ("continual.json is nested too deeply",)),
    Bad("a sequence without parts", sequence("{}"), ("continual.json is damaged",)),
    Bad(
        "a sequence that is not there",
        cli("continual", "--compare", "nowhere", "--out", "o"),
        ("nowhere has no continual.json",),
    ),
    # sweep
    Bad("a grid that is not there", cli("sweep", "none.yaml", "--out", "s"), ("there is no such file",)),
    Bad("a grid with an unknown part", grid("bse: {model: lab}\n"), ("Unknown part of g.yaml", "base")),
    Bad("a grid written as a run", grid("model: lab\n"), ("has the run below `base`",)),
    Bad("a grid whose base is a list", grid("base: [lab]\n"), ("'base' must be a mapping",)),
    Bad("a grid with a name twice", grid("base: {model: lab, model: x}\n"), ("the name 'model' occurs twice",)),
    Bad("a grid nested deeply", grid("[" * DEEP), ("nested too deeply",)),
    Bad(
        "a grid with an empty axis",
        grid("base: {model: lab, data: lab, method: ga}\naxes: {seed: []}\n"),
        ("must be a list of values",),
    ),
    Bad(
        "a grid with a cell that cannot be",
        grid("base: {model: lab, data: lab, method: ga}\naxes: {training.rank: [8, 0]}\n"),
        ("training.rank must be at least 1",),
    ),
    Bad(
        "a grid with an unknown method",
        grid("base: {model: lab, data: lab}\naxes: {method: [ga, npoo]}\n"),
        ("'npoo'",),
    ),
    Bad(
        "a sweep by an unknown launcher",
        lambda place: [*grid("base: {model: lab, data: lab, method: ga}\n")(place), "--launcher", "magic"],
        ("'magic'",),
    ),
    Bad(
        "a sweep of no jobs",
        lambda place: [*grid("base: {model: lab, data: lab, method: ga}\n")(place), "--jobs", "0"],
        ("--jobs must be at least 1",),
    ),
    # the others
    Bad("an unknown world", cli("train", "mars", "--out", "o"), ("mars",)),
    Bad("a world without people", cli("train", "lab", "--out", "o", "--people", "0"), ("people",)),
    Bad(
        "a training of NaN steps",
        cli("train", "lab", "--out", "o", "--steps-scale", "nan"),
        ("--steps-scale must be", "nan"),
    ),
    Bad("a training of -1 steps", cli("train", "lab", "--out", "o", "--steps-scale", "-1"), ("--steps-scale must be",)),
    Bad("a demo of no seeds", cli("demo", "--out", "o", "--seeds", "0"), ("seeds",)),
    Bad("a demo of an unknown method", cli("demo", "--out", "o", "--methods", "ga,npoo"), ("npoo",)),
    Bad("a list of nothing", cli("list", "methodes"), ("methodes", "methods")),
    Bad("check of nothing", cli("check"), ("Give --data",)),
    Bad(
        "check for a model that is not there",
        lambda place: (good(place), ["check", "d", "--model", "no/model/here"])[1],
        ("no/model/here",),
    ),
)
"""Further commands: values, requests, imports, judges, and damaged folders."""


def _json(name: str, change: Callable[[dict[str, Any]], object] | str) -> Callable[[Path], None]:
    """Return what changes a JSON file of a model, or replaces it by text."""

    def make(model: Path) -> None:
        path = model / name
        if isinstance(change, str):
            path.write_text(change)
            return
        values = json.loads(path.read_text()) if path.exists() else {}
        change(values)
        path.write_text(json.dumps(values))

    return make


def adapter(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what makes an adapter folder on the tiny model and breaks it."""

    def make(model: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForImageTextToText

        base = model.parent / "base"
        model.rename(base)
        tuned = get_peft_model(
            AutoModelForImageTextToText.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"])
        )
        tuned.peft_config["default"].base_model_name_or_path = str(base)
        tuned.save_pretrained(model)
        change(model)

    return make


def settings(**changed: Any) -> Callable[[Path], None]:
    """Return an adapter whose adapter_config.json says something else."""
    return adapter(_json("adapter_config.json", lambda values: values.update(changed)))


def _prompted(model: Path) -> None:
    """Put vectors before the prompt instead of an adapter."""
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(model.parent / "base")
    tuned = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    tuned.peft_config["default"].base_model_name_or_path = str(model.parent / "base")
    tuned.save_pretrained(model)


def _renamed(model: Path) -> None:
    """Give an adapter the names of older transformers."""
    from safetensors.torch import load_file, save_file

    file = model / "adapter_model.safetensors"
    new, old = "model.language_model.layers", "language_model.model.layers"
    save_file({name.replace(new, old): value for name, value in load_file(file).items()}, file)
    _json(
        "adapter_config.json", lambda values: values.update(target_modules=r".*language_model\.model\.layers.*q_proj")
    )(model)


def _pickled(model: Path) -> None:
    (model / "adapter_model.safetensors").rename(model / "adapter_model.bin")


def _cut_weights(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:500])


def _narrow(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = model / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("q_proj.weight") and "language" in name)
    save_file({**weights, name: weights[name][:8].contiguous()}, file, metadata={"format": "pt"})


def _resized(model: Path) -> None:
    """Give an adapter embeddings of two further tokens, and no tokenizer."""
    from safetensors.torch import load_file, save_file

    file, base = model / "adapter_model.safetensors", load_file(model.parent / "base" / "model.safetensors")
    name = next(name for name in base if name.endswith("embed_tokens.weight"))
    more = base[name].new_zeros(base[name].shape[0] + 2, base[name].shape[1])
    save_file(
        {**load_file(file), f"base_model.model.{name.removeprefix('base_model.')}": more},
        file,
        metadata={"format": "pt"},
    )


def text(name: str, content: str) -> Callable[[Path], object]:
    """Return what replaces a file of the model."""
    return lambda model: (model / name).write_text(content)


def rows(**changed: Any) -> Callable[[Path], None]:
    """Return data that the model cannot encode."""
    return lambda model: jsonl(model.parent, row(**changed), kept())


def wide(size: tuple[int, int]) -> Callable[[Path], None]:
    """Return data with a picture of that size."""

    def make(model: Path) -> None:
        Image.new("RGB", size).save(model.parent / "d" / "a.png")

    return make


MODELS: Final = (
    Bad("config.json that is text", text("config.json", "hello"), ("config.json is no valid JSON",)),
    Bad(
        "config.json that is a list",
        text("config.json", "[]"),
        ("config.json must hold one object with named fields, got list",),
    ),
    Bad(
        "config.json nested deeply",
        text("config.json", '{"a": ' * DEEP + "1" + "}" * DEEP),
        ("config.json is nested too deeply",),
    ),
    Bad(
        "config.json with a name twice",
        text("config.json", '{"model_type": "llava", "model_type": "bert"}'),
        ("'model_type' occurs twice",),
    ),
    Bad("config.json without a type", text("config.json", "{}"), ("is no model that transformers can open",)),
    Bad(
        "config.json of an unknown type",
        text("config.json", '{"model_type": "llavva"}'),
        ("is no model that transformers can open",),
    ),
    Bad(
        "config.json of a text model",
        text("config.json", '{"model_type": "bert"}'),
        ("Expected a vision-language model", "'bert'"),
    ),
    Bad("config.json that is a git-lfs pointer", text("config.json", POINTER), ("config.json is a git-lfs pointer",)),
    Bad(
        "a negative vocabulary",
        _json("config.json", lambda values: values["text_config"].update(vocab_size=-5)),
        ("Cannot", "-5"),
    ),
    Bad(
        "a vocabulary that is text",
        _json("config.json", lambda values: values["text_config"].update(vocab_size="many")),
        ("many",),
    ),
    Bad(
        "heads that do not divide",
        _json("config.json", lambda values: values["text_config"].update(num_attention_heads=0)),
        ("config.json",),
    ),
    Bad(
        "quantised weights",
        _json(
            "config.json",
            lambda values: values.update(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ),
        ("are quantised ('bitsandbytes')", "original checkpoint"),
    ),
    Bad(
        "other quantised weights",
        _json("config.json", lambda values: values.update(quantization_config={"quant_method": "gptq", "bits": 4})),
        ("are quantised ('gptq')",),
    ),
    Bad(
        "weights that are a git-lfs pointer",
        text("model.safetensors", POINTER),
        ("model.safetensors is a git-lfs pointer",),
    ),
    Bad(
        "a tokenizer that is a git-lfs pointer",
        text("tokenizer.json", POINTER),
        ("tokenizer.json is a git-lfs pointer", "git lfs pull"),
    ),
    Bad("weights cut off", _cut_weights("model.safetensors"), ("damaged or cut off",)),
    Bad("weights of another shape", _narrow, ("Cannot load",)),
    Bad("no weights", lambda model: (model / "model.safetensors").unlink(), ("model.safetensors",)),
    Bad("tokenizer.json that is text", text("tokenizer.json", "hello"), ("no usable processor",)),
    Bad("processor_config.json that is a list", text("processor_config.json", "[]"), ("no usable processor",)),
    Bad("a template that fails", text("chat_template.jinja", "{{ messages.x.y }}"), ("chat template",)),
    Bad("a template with a mistake", text("chat_template.jinja", "{% for %}"), ("chat template",)),
    Bad(
        "a template that does not end",
        text("chat_template.jinja", "{% for i in range(10**12) %}x{% endfor %}"),
        ("chat template does not render",),
    ),
    Bad(
        "a template that writes megabytes",
        text("chat_template.jinja", "{{ 'x' * 3000000 }}"),
        ("writes 3,000,000 characters",),
    ),
    Bad("unsee.json that is text", text("unsee.json", "hello"), ("unsee.json is no valid JSON",)),
    Bad("unsee.json that is a list", text("unsee.json", "[]"), ("unsee.json must hold one object",)),
    Bad(
        "unsee.json with a number",
        text("unsee.json", '{"instruction": 3}'),
        ("unsee.json: 'instruction' must be text, got 3",),
    ),
    Bad(
        "adapter_config.json that is text",
        adapter(text("adapter_config.json", "hello")),
        ("adapter_config.json is no valid JSON",),
    ),
    Bad(
        "adapter_config.json that is a list",
        adapter(text("adapter_config.json", "[]")),
        ("adapter_config.json must hold one object",),
    ),
    Bad(
        "adapter_config.json nested deeply",
        adapter(text("adapter_config.json", "[" * DEEP)),
        ("adapter_config.json is",),
    ),
    Bad(
        "an adapter without a base",
        settings(base_model_name_or_path=None),
        ("does not say what it stands on", "got None"),
    ),
    Bad(
        "an adapter whose base is a number",
        settings(base_model_name_or_path=7),
        ("does not say what it stands on", "got 7"),
    ),
    Bad(
        "an adapter whose base is gone",
        settings(base_model_name_or_path="/gone/base"),
        ("stands on /gone/base, which is not here", "adapter_config.json"),
    ),
    Bad(
        "an adapter that stands on itself",
        adapter(
            lambda model: _json(
                "adapter_config.json", lambda values: values.update(base_model_name_or_path=str(model))
            )(model)
        ),
        ("stands on itself",),
    ),
    Bad("an adapter of an unknown kind", settings(peft_type="MAGIC"), ("does not fit its base", "adapter_config.json")),
    Bad("an adapter of vectors before the prompt", adapter(_prompted), ("PROMPT_TUNING", "cannot be merged", "LoRA")),
    Bad("an adapter with a setting of another type", settings(r="four"), ("does not fit its base",)),
    Bad("an adapter for other modules", settings(target_modules=["nothing"]), ("does not fit its base",)),
    Bad("an adapter for older names", adapter(_renamed), ("older transformers", "language_model.model.layers", "save")),
    Bad("an adapter of another rank", settings(r=3), ("does not fit its base",)),
    Bad(
        "an adapter with other weights",
        adapter(
            lambda model: shutil.copy(model.parent / "base" / "model.safetensors", model / "adapter_model.safetensors")
        ),
        ("adapter",),
    ),
    Bad(
        "an adapter without weights",
        adapter(lambda model: (model / "adapter_model.safetensors").unlink()),
        ("has no adapter_model.safetensors",),
    ),
    Bad("an adapter that is a pickle", adapter(_pickled), ("has no adapter_model.safetensors", "a pickle")),
    Bad("an adapter cut off", adapter(_cut_weights("adapter_model.safetensors")), ("damaged or cut off",)),
    Bad(
        "an adapter that is a git-lfs pointer",
        adapter(text("adapter_model.safetensors", POINTER)),
        ("is a git-lfs pointer",),
    ),
    Bad("an adapter with more embeddings", adapter(_resized), ("embeddings", "its base has")),
    # rows that this model cannot encode
    Bad("EOS in an answer", rows(answer="Ada Lovell</s>"), ("row a", "the answer holds '</s>'", "a special token")),
    Bad("BOS in a question", rows(question="<s> Who is this?"), ("row a", "the question holds '<s>'")),
    Bad("padding in an answer", rows(answer="<pad> Ada"), ("the answer holds '<pad>'",)),
    Bad(
        "a question that is too long",
        rows(question="Who is this? " * 4000),
        ("row a", "a.png", "tokens with its image and answer", "at most 2048"),
    ),
    Bad("an answer that is too long", rows(answer="Ada Lovell " * 4000), ("row a", "at most 2048", "Shorten it")),
)
"""Models, adapters and data that do not go together."""


def model_of(bad: Bad, tiny: Path, place: Path) -> Path:
    """Copy the tiny model, write data without a fault beside it, and break what the row breaks."""
    good(place)
    model = place / "m"
    shutil.copytree(tiny, model)
    bad.make(model)
    return model
