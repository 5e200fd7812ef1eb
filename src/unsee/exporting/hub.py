"""Upload of runs to the Hugging Face Hub, private by default.

The upload is exported to a temporary folder: the adapter or the merged checkpoint with its card and processor, by a
list of names. It is searched for private strings and ids of the data first. Paths of this machine, the run file and the
log are never uploaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from unsee import config
from unsee.config import paths
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.exporting import private_search
from unsee.models import builtin, model_card
from unsee.utils.files import atomic_write_json, atomic_write_text, foreign, is_public, read_jsonl
from unsee.utils.parsing import read_object

Extra = Literal["scores", "responses", "images"]
EXTRAS: Final = ("scores", "responses", "images")
"""Optional files: scores.json, responses.jsonl (texts about the forget set!), their images."""
MESSAGE: Final = "unsee: upload an unlearned model"
"""Message of the commit. The run folder's name may name somebody, so it stays out."""
_IMAGE: Final = re.compile(r"[0-9a-f]{16}\.png")


class Hub(Protocol):
    """Used part of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """Create the repository unless it exists."""
        ...

    def repo_info(self, repo_id: str) -> Any:
        """Return the hub's record of the repository, such as whether it is private."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        """Upload all files of a folder as one commit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Files that were, or would be, uploaded."""

    repo: str
    private: bool
    files: dict[str, int]
    """Path in the repository -> bytes."""
    done: bool
    left_out: tuple[str, ...] = ()
    """Files beside the weights that are not uploaded."""

    def __str__(self) -> str:
        """Return one line per file."""
        verb = "uploaded to" if self.done else "would be uploaded to"
        lines = [f"{size:>12,}  {name}" for name, size in self.files.items()]
        remaining = [f"stays here: {', '.join(self.left_out)}"] if self.left_out else []
        # an existing repository keeps its visibility, and a dry run makes no request
        condition = "" if self.done else ", if it is new"
        return "\n".join(
            [f"{verb} {self.repo} ({'private' if self.private else 'PUBLIC'}{condition}):", *lines, *remaining]
        )


def push(
    run: Path | str,
    repo: str,
    *,
    merged: bool = False,
    base: str = "",
    private: bool = True,
    extras: Collection[str] = (),
    allow: Collection[str] = (),
    dry_run: bool = False,
    hub: Hub | None = None,
) -> Upload:
    """Upload a run's model to the repository `repo` ("owner/name") and list the files.

    Args:
        run: Run folder.
        repo: Repository; made if it does not exist.
        merged: Upload the whole checkpoint instead of the adapter.
        base: Hub id of the base model, for an adapter that was trained on a local copy of it.
        private: Make the repository private, and upload to no public one. An existing repository keeps its visibility.
        extras: Further files to upload: some of scores, responses, images.
        allow: Private strings of the data that may be uploaded, because they are harmless where they occur.
        dry_run: Only list the files.
        hub: Client; None = `huggingface_hub.HfApi()`, which takes the token of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: The run, the repository's name or the base cannot be used, the repository is public though `private`
            was asked for, or the hub refuses.
    """
    processes.require_single("unsee push")
    if not _is_repository(repo):
        raise UserError(f"Expected a repository like owner/name, got {repo!r}.")
    unknown_extras = sorted(set(extras) - set(EXTRAS))
    if unknown_extras:
        raise UserError(f"Expected extras among {', '.join(EXTRAS)}, got {', '.join(unknown_extras)}.")
    if base and merged:
        raise UserError(
            "--base names the base of an adapter, and --merged uploads a whole checkpoint. Leave one of them out."
        )
    if base and not _is_repository(base):
        raise UserError(f"Expected the hub id of the base (--base OWNER/NAME), got {base!r}.")
    folder = paths.require_run(run)
    if not (folder / "run.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no run.yaml.")
    config.require_ended(folder)
    if extras:
        config.require_judged(folder)
    strings = private_search.strings_of(folder)
    with _staged_upload(folder, merged, base) as stage:
        for extra in EXTRAS:
            if extra in extras:
                _add(folder, stage, extra)
        private_search.require_none(stage, strings, allowed=allow)
        files = {
            path.relative_to(stage).as_posix(): path.stat().st_size
            for path in sorted(stage.rglob("*"))
            if path.is_file()
        }
        if not dry_run:
            private = _upload(hub, repo, stage, private)
    left_out = tuple(sorted(path.name for path in foreign(folder / "model") if not is_public(path.name)))
    return Upload(repo=repo, private=private, files=files, done=not dry_run, left_out=left_out)


@contextmanager
def _staged_upload(run: Path, merged: bool, base: str) -> Iterator[Path]:
    """Collect the upload, restricted to the allowed file names."""
    from unsee.exporting import export
    from unsee.models.checkpoint import public_files

    adapter = (run / "model" / "adapter_config.json").is_file() and not merged
    if base and not adapter:
        raise UserError(f"--base names the base of an adapter, and {run} has none. Leave it out.")
    base_id = _base(run, base) if adapter else ""
    with tempfile.TemporaryDirectory() as temporary:
        exported, stage = Path(temporary) / "export", Path(temporary) / "stage"
        export(run, "peft" if adapter else "merged", exported)
        stage.mkdir()
        for path in public_files(exported):
            path.rename(stage / path.name)
        if adapter:
            file = stage / "adapter_config.json"
            atomic_write_json(file, {**read_object(file), "base_model_name_or_path": base_id})
            atomic_write_text(stage / model_card.CARD, model_card.card(run, base=base_id))
        _clean(stage)
        yield stage


def _base(run: Path, base: str) -> str:
    """Return the hub id of the base model, which users of the adapter need."""
    from unsee.exporting.checkpoints import base_of

    if base:
        return base
    base_id = base_of(run)
    if builtin.name_of(base_id) or Path(base_id).exists() or not _is_repository(base_id):
        raise UserError(
            f"The base of the adapter, {base_id}, is not on the hub. Give its hub id with --base OWNER/NAME, or push the "
            "whole checkpoint with --merged."
        )
    return base_id


def _is_repository(name: str) -> bool:
    """Tell whether a name has the form of a repository on the hub, "owner/name"."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _clean(stage: Path) -> None:
    """Remove paths of this machine from the sidecar."""
    sidecar = stage / "unsee.json"
    if sidecar.is_file():
        content = read_object(sidecar)
        atomic_write_json(sidecar, {key: value for key, value in content.items() if key not in ("base", "ancestor")})


def _add(run: Path, stage: Path, extra: str) -> None:
    """Copy scores, responses or their images."""
    names = {"scores": "scores.json", "responses": "responses.jsonl"}
    if extra in names:
        source = run / names[extra]
        if not source.is_file():
            raise UserError(f"{run} has no {source.name}; judge it first with unsee eval.")
        if extra == "scores":
            atomic_write_json(stage / source.name, _without_ids(source))
        else:
            shutil.copyfile(source, stage / source.name)
        return
    if not (run / "responses.jsonl").is_file():
        raise UserError(f"{run} has no responses.jsonl that says which images it was asked about.")
    (stage / "images").mkdir()
    for name in sorted({row["image"] for row in read_jsonl(run / "responses.jsonl") if row["image"]}):
        source = run / name
        if not source.exists():
            raise UserError(f"{source}, which {run} was asked about, is gone. Leave images out of --with.")
        if _IMAGE.fullmatch(source.name) and source.is_file() and not source.is_symlink():
            shutil.copyfile(source, stage / "images" / source.name)


def _without_ids(file: Path) -> dict[str, Any]:
    """Return the scores without the values of single rows, whose ids tell who was forgotten."""
    scores = read_object(file)
    if not all(isinstance(score, Mapping) for score in scores.values()):
        raise UserError(
            f"{file} is damaged: a score is no object with named fields. Judge the run again with `unsee eval`."
        )
    return {
        name: {key: value for key, value in score.items() if key != "value_by_index"} for name, score in scores.items()
    }


def _upload(hub: Hub | None, repo: str, stage: Path, private: bool) -> bool:
    """Upload a folder, and return whether the repository, which may have existed, is private."""
    from huggingface_hub import HfApi

    api: Any = HfApi() if hub is None else hub
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        is_private = bool(api.repo_info(repo).private)
        if private and not is_private:
            raise UserError(
                f"{repo} exists already and is public, so everybody could read what is uploaded. Nothing was. Push with "
                "--public if that is meant, make it private on the hub, or name another repository."
            )
        api.upload_folder(repo_id=repo, folder_path=str(stage), commit_message=MESSAGE)
    except _refusals() as error:
        raise UserError(
            f"The hub refused {repo}: {error}. Log in with `hf auth login`, or look at --dry-run."
        ) from error
    return is_private


def _refusals() -> tuple[type[Exception], ...]:
    """Return the exceptions of an unreachable or refusing hub."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub_errors: tuple[type[Exception], ...] = (HfHubHTTPError, HFValidationError, OSError)
    clients = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name) is not None]
    return (*hub_errors, *(importlib.import_module(name).HTTPError for name in clients))
