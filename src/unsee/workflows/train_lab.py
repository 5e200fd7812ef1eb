"""Workflow of `train`: the lab model, or the gold model without the forget entities.

`unsee train documents` continues from the packaged lab model and teaches it documents too.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console
from rich.table import Table

from unsee.api import Example, Role
from unsee.config import paths
from unsee.distributed import processes
from unsee.distributed.file_lock import owner, require_free
from unsee.errors import UserError
from unsee.lab.recipe.grades import TARGETS, grade
from unsee.lab.smol import examples as english_examples
from unsee.lab.smol import grades as english_grades
from unsee.lab.smol.examples import world as english_world
from unsee.lab.world import examples as lab_examples
from unsee.lab.world.people import Person
from unsee.lab.world.phrases import StrangerStyle
from unsee.lab.world.world import World
from unsee.models import builtin
from unsee.utils.files import atomic_write_json, foreign, owned_folder, remove_folder
from unsee.utils.progress import Bar

if TYPE_CHECKING:
    from unsee.lab.documents.archive import Archive, Document
    from unsee.lab.recipe.recipe import Recipe
    from unsee.lab.resume import Checkpoint
    from unsee.lab.smol.school import SmolRecipe

WORLDS: Final = ("lab", "documents")
"""Trainable worlds: the embedded one from scratch, or the built-in model continued on documents."""
REQUEST: Final = "train.json"
"""File with the settings of a training."""
EXAM: Final = "exam.json"
"""File of grades, written last, which marks a finished folder."""
CHECKPOINTS: Final = "checkpoints"
PARTS: Final = "parts"
"""Folder of adapter and projector of a model on a pretrained base: what is packaged of it."""
BACKBONES: Final = ("", "smollm2")
"""Language model: the lab's own, from scratch, or a pretrained one."""
WITHOUT: Final = ("", "forget", "pictures")
"""What a training may leave out: nothing, the forget entities, or their pictures (their text facts are taught)."""


def train(
    world: str,
    out: Path | str,
    *,
    without: str = "",
    people: int = 50,
    seed: int = 0,
    weights_seed: int | None = None,
    strangers: StrangerStyle = "describe",
    scale: float = 1.0,
    suppress: Path | str = "",
    backbone: str = "",
) -> Path:
    """Train a lab model from scratch, grade it on new images, save it, and return its folder.

    Args:
        world: `lab`: a model from scratch. `documents`: goes on from the packaged lab model (`seed` is then that of the training alone).
        out: Folder for the model. The same call goes on where an earlier one was cut off, to the same weights.
        without: `forget` leaves the forget targets out: the gold standard of unlearning. `pictures` leaves out their pictures alone:
            the gold standard where the promise is that a face is no longer recognised.
        people: People to invent.
        seed: Draws people, first weights and order.
        weights_seed: Draws weights and order alone, for another model of the same people. Default: `seed`.
        strangers: What is said of unknown people: `describe` the picture, `unknown` (that they are), or `guess` (an invention).
        scale: Factor of the steps (1.0 = the recipe of the packaged checkpoints; less is faster and worse).
        suppress: Ledger of deletion requests, whose people are not taught again. Empty: not checked.
        backbone: `smollm2` teaches people of the lab to a pretrained language model (`lab-smol`; its people and seed are settled).
            Empty: the lab's own language model.

    Raises:
        UserError: The settings are wrong, the folder holds other files, somebody of `suppress` would be taught, or there are
            several processes.
    """
    processes.require_single("unsee train")
    _check(world, without, scale, backbone)
    if world == "documents" and (people, strangers) != (50, "describe"):
        raise UserError("Documents are taught to the packaged lab model: --people and --strangers are settled.")
    if backbone and (people, strangers, seed) != (50, "describe", 0):
        raise UserError("The people of --backbone smollm2 are settled: leave out --people, --strangers and --seed.")
    if weights_seed is not None and (backbone or world != "lab"):
        raise UserError("--weights-seed is for `unsee train lab` with the lab's own language model; leave it out.")
    lab_world = english_world() if backbone else World(seed=seed, size=people, strangers=strangers)
    folder = Path(out)
    settings = {
        "world": world, "without": without, "people": people, "seed": seed, "strangers": strangers, "scale": scale
    }  # fmt: skip
    if backbone:
        settings["backbone"] = backbone
    if weights_seed is not None:
        settings["weights_seed"] = weights_seed
    _require_place(folder, settings)
    if suppress:
        from unsee.workflows.requests.suppression import require_none

        require_none(_taught(world, lab_world, without), suppress, f"unsee train {world}")
    _require_ready(backbone)
    with owner(folder, check=partial(_require_place, folder, settings)):
        if not (folder / EXAM).is_file():
            atomic_write_json(folder / REQUEST, settings)
            _train(folder, world, lab_world, without, seed if weights_seed is None else weights_seed, scale)
        remove_folder(folder / CHECKPOINTS)
    return folder


def _train(folder: Path, world: str, lab_world: World, without: str, seed: int, scale: float) -> None:
    """Train, save and grade, resuming an interrupted call."""
    from unsee.lab.resume import Checkpoint

    checkpoint = Checkpoint(
        owned_folder(folder / CHECKPOINTS) / "state.pt", every=25 if lab_world.language == "lab" else 5
    )
    if lab_world.language == "english":
        _train_english(folder, lab_world, without, scale, checkpoint)
    elif world == "documents":
        _train_documents(folder, without, seed, scale, checkpoint)
    else:
        _train_lab(folder, lab_world, without, seed, scale, checkpoint)


def _train_lab(folder: Path, lab_world: World, without: str, seed: int, scale: float, checkpoint: Checkpoint) -> None:
    from unsee.lab.recipe.curriculum import Amount
    from unsee.lab.recipe.model import Size
    from unsee.lab.recipe.recipe import Recipe
    from unsee.lab.recipe.school import teach

    pictured_people, by_name = _known_people(lab_world, without)
    recipe = _scaled(replace(Recipe(), seed=seed), scale)
    start = time.perf_counter()
    with _Stages() as stages:
        model, processor = teach(
            lab_world,
            pictured_people,
            size=Size(),
            amount=Amount(),
            recipe=recipe,
            progress=stages,
            checkpoint=checkpoint,
            by_name=by_name,
        )
    seconds = _seconds(start, checkpoint)
    save(model, processor, folder, lab_world)
    grades = {"grades": examine(folder, lab_world, without)}
    _write_exam(folder, seconds, without, recipe, grades)


def _train_documents(folder: Path, without: str, seed: int, scale: float, checkpoint: Checkpoint) -> None:
    from unsee.lab.documents.archive import Archive
    from unsee.lab.documents.lessons import DocumentLessons
    from unsee.lab.documents.school import RECIPE, teach_documents
    from unsee.models.checkpoint import open_model

    archive = Archive(World())
    recipe = _scaled(replace(RECIPE, seed=seed), scale)
    known_documents = [document for document in archive.documents if not (without and document in archive.forget)]
    start = time.perf_counter()
    loaded = open_model(builtin.checkpoint("lab"), dtype="float32")
    with _Stages() as stages:
        teach_documents(
            loaded.model, loaded.processor, DocumentLessons(archive, known_documents), recipe, stages, checkpoint
        )
    seconds = _seconds(start, checkpoint)
    save(loaded.model, loaded.processor, folder, archive.world)
    _write_exam(folder, seconds, without, recipe, examine_documents(folder, archive, known_documents))


def _train_english(folder: Path, lab_world: World, without: str, scale: float, checkpoint: Checkpoint) -> None:
    """Teach lab people to the pretrained language model, and save it whole and in parts."""
    from unsee.lab.smol.lessons import English
    from unsee.lab.smol.school import AMOUNT, LATE, Course, SmolRecipe, train_smol
    from unsee.models import smollm2
    from unsee.training.precision import denormals_flushed

    pictured_people, by_name = _known_people(lab_world, without)
    recipe = SmolRecipe()
    step_counts = {
        name: round(getattr(recipe, name) * scale) for name in ("read_steps", "card_steps", "steps_before", "steps")
    }
    recipe = replace(recipe, **{**step_counts, "steps": max(2, step_counts["steps"])})
    start = time.perf_counter()
    tower = builtin.checkpoint(builtin.TOWER)
    model, processor = smollm2.build(tower)
    before = Course.of(model, English(lab_world, lab_world.retain, AMOUNT))
    new_ids = tuple(person.id for person in lab_world.forget)
    after = Course.of(model, English(lab_world, pictured_people, AMOUNT, by_name, new_ids, **LATE))
    with _Stages() as stages, denormals_flushed():
        lora = train_smol(model, processor, (before, after), recipe, stages, checkpoint)
    seconds = _seconds(start, checkpoint)
    parts = owned_folder(folder / PARTS)
    smollm2.save_parts(parts, model, lora, rank=recipe.rank, alpha=recipe.alpha)
    save(*smollm2.merged_model(parts, tower), folder, lab_world)
    _write_exam(folder, seconds, without, recipe, examine_english(folder, lab_world, pictured_people, by_name))


def _seconds(start: float, checkpoint: Checkpoint) -> int | None:
    """Return the time since `start`, or None where earlier calls did part of the work."""
    return round(time.perf_counter() - start) if checkpoint.state is None else None


def _write_exam(
    folder: Path,
    seconds: int | None,
    without: str,
    recipe: Recipe | SmolRecipe,
    grades: Mapping[str, Mapping[str, Any]],
) -> None:
    facts = {"seconds": seconds, "without": without, "recipe": asdict(recipe)}
    atomic_write_json(folder / EXAM, {**facts, **grades})


def examine_documents(
    folder: Path, archive: Archive, known_documents: Sequence[Document]
) -> dict[str, dict[str, dict[str, float]]]:
    """Grade a saved model on new document copies, and on earlier knowledge."""
    from unsee.lab.documents import documents
    from unsee.lab.documents.phrases import vocabulary

    examples, old_examples = documents.exam(archive, known_documents), documents.old_exam(archive.world)
    answers = _answers(folder, [*examples, *old_examples])
    new_grades = grade(archive.world, zip(examples, answers, strict=False), vocabulary(archive))
    old_grades = grade(archive.world, zip(old_examples, answers[len(examples) :], strict=True))
    return {
        "grades": _print_grades(new_grades, "On new copies"),
        "before": _print_grades(old_grades, "On what it knew before"),
    }


def examine(
    folder: Path, world: World, without: str = "", *, people: Sequence[Person] = ()
) -> dict[str, dict[str, float]]:
    """Grade a saved lab model on new images of `people`, and print the grades.

    Args:
        folder: Folder of the model.
        world: World that it was taught.
        without: What was left out of the training, as in `train`: asked about as it was taught.
        people: Whom to ask about. Default: all that the model knows.

    Returns:
        Subject -> its grade, as printed.
    """
    people_groups = (people,) if people else _known_people(world, without)
    examples = [*lab_examples.exam(world, *people_groups), *lab_examples.geography()]
    return _print_grades(grade(world, zip(examples, _answers(folder, examples), strict=True)), "On new renderings")


def examine_english(
    folder: Path, world: World, people: Sequence[Person], by_name: Sequence[Person] = ()
) -> dict[str, dict[str, Any]]:
    """Grade a saved `lab-smol` model on held-out rows, and its fluency under the base.

    The recipe was not chosen on these rows.

    Args:
        folder: Folder of the model.
        world: World that it was taught.
        people: People whom it knows with pictures.
        by_name: People whom it knows from text alone.
    """
    from unsee.lab.smol.fluency import fluency
    from unsee.models import smollm2
    from unsee.models.checkpoint import open_model

    examples = english_examples.exam(world, people, by_name, "final")
    answers = _answers(folder, examples)
    grades = english_grades.grade_subjects(world, zip(examples, answers, strict=True))
    base, processor = smollm2.build(builtin.checkpoint(builtin.TOWER))
    base_vlm = replace(open_model(folder), model=base.to(processes.device()), processor=processor)
    return {
        "grades": _print_grades(
            grades, "In wordings and pictures never taught, on rows never looked at", english_grades.TARGETS
        ),
        "fluency": fluency(base_vlm, examples, answers),
    }


def _taught(world: str, lab_world: World, without: str) -> Iterator[Example]:
    """Yield rows about everybody that a training teaches."""
    if world == "documents":
        from unsee.lab.documents import documents
        from unsee.lab.documents.archive import Archive

        archive = Archive(World())
        left_out_ids = {document.id for document in archive.forget} if without else set()
        yield from (row for row in documents.request(archive) if row.entity not in left_out_ids)
        return
    pictured_people, by_name = _known_people(lab_world, without)
    for person in pictured_people:
        for index in range(lab_examples.SEEN_IMAGES):
            yield from lab_examples.probes(lab_world, person, Role.RETAIN, "seen", index)
    for person in (*pictured_people, *by_name):
        yield from lab_examples.text_facts(person, Role.RETAIN_TEXT)


def _known_people(world: World, without: str) -> tuple[Sequence[Person], Sequence[Person]]:
    """Return the people known from pictures and text, and those known from text alone."""
    if not without:
        return world.people, ()
    return world.retain, world.forget if without == "pictures" else ()


def _print_grades(
    figures: Mapping[str, tuple[float, int]], title: str, targets: Mapping[str, float] = TARGETS
) -> dict[str, dict[str, float]]:
    """Print a table of grades, and return them rounded."""
    table = Table("subject", "right", "wanted", "n", title=title)
    for subject, (share, n) in figures.items():
        target = targets.get(subject)
        table.add_row(subject, f"{share:.3f}", f"{target:.2f}" if target else "", str(n))
    Console(stderr=True).print(table)
    return {subject: {"right": round(share, 4), "n": n} for subject, (share, n) in figures.items()}


def _answers(folder: Path, examples: list[Example]) -> list[str]:
    from unsee.api.request import Prompt
    from unsee.inference.generation import generate
    from unsee.models.checkpoint import open_model

    loaded = open_model(folder)
    loaded.model.to(processes.device())
    requests = [Prompt.of(example) for example in examples]
    completions = generate(loaded, requests, max_new_tokens=110)
    return [completion.text for completion in completions]


def save(model: Any, processor: Any, folder: Path, world: World) -> None:
    """Save in half precision (safetensors), with processor and the description of the world.

    Args:
        model: Model to save, converted to fp16 in place.
        processor: Its processor.
        folder: Folder, made if it is missing.
        world: World that it was taught; what differs from the default goes to `world.json`.
    """
    from unsee.models.half_precision import save_half

    names = ("seed", "size", "forget_share", "strangers", "first", "chosen", "language")
    default_world = World()
    fields = {
        name: value
        for name, value in ((name, getattr(world, name)) for name in names)
        if name in names[:4] or value != getattr(default_world, name)
    }
    save_half(model, processor, folder, {"world.json": json.dumps(fields) + "\n"})


def _scaled(recipe: Recipe, scale: float) -> Recipe:
    vision, language = (max(2, round(steps * scale)) for steps in (recipe.vision_steps, recipe.language_steps))
    return replace(recipe, vision_steps=vision, language_steps=language)


def _check(world: str, without: str, scale: float, backbone: str) -> None:
    if world not in WORLDS:
        raise UserError(f"Write `unsee train lab` or `unsee train documents`, got {world!r}.")
    if backbone not in BACKBONES:
        raise UserError(f"--backbone takes the word smollm2, got {backbone!r}.")
    if backbone and world != "lab":
        raise UserError(f"--backbone is for `unsee train lab` only, got it with {world!r}. Leave it out.")
    if without not in WITHOUT:
        raise UserError(
            f"--without takes the word forget (leave out the forget targets) or pictures (their pictures alone), got {without!r}."
        )
    if world == "documents" and without == "pictures":
        raise UserError("--without pictures is for `unsee train lab`: documents are known from their pictures alone.")
    if not 0 < scale < math.inf:
        raise UserError(f"--steps-scale must be positive and finite, got {scale}.")


def _require_place(folder: Path, settings: dict[str, Any]) -> None:
    """Raise if the folder holds anything but an earlier attempt with the same settings."""
    paths.require_writable(folder)
    require_free(folder)
    if not foreign(folder):
        return
    file = folder / REQUEST
    if not file.is_file():
        raise UserError(f"{folder} is not empty; name a new folder.")
    try:
        earlier_settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}). Name a new folder.") from error
    if earlier_settings != settings:
        raise UserError(f"{folder} holds a training with other settings ({file} says which). Name a new folder.")


def _require_ready(backbone: str) -> None:
    """Raise before anything is written if the pretrained base, or torch's Muon, is missing."""
    if backbone:
        from unsee.models import smollm2

        smollm2.folder()
        return
    from unsee.lab.recipe.recipe import muon_class

    muon_class()


class _Stages:
    """One progress bar per stage, with the current loss."""

    def __init__(self) -> None:
        self.bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, stage: str, step: int, steps: int, loss: float) -> None:
        if self.bar is None or self.bar.label != stage:
            self.__exit__()
            self.bar = Bar(stage, steps)
            self.bar.start(max(0, step - 1))
        self.bar.update(step, f"loss {loss:.3f}" if loss else "")
