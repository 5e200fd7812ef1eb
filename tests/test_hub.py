"""What goes up to the hub: nothing without asking, private, no answers and images, no path of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError

from tiny import save_tiny
from unsee import cli, evaluate, forget, push
from unsee.errors import UserError

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_folder"
SHORT = {"max_steps": 1, "stop": "never", "max_new_tokens": 4}


class FakeHub:
    """Remembers what would be on the hub."""

    def __init__(self) -> None:
        self.repos: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.message = ""

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.repos[repo_id] = private

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        root, self.message = Path(folder_path), commit_message
        assert repo_id in self.repos
        self.files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


class Refusing(FakeHub):
    def create_repo(self, repo_id, *, private, exist_ok):
        raise HFValidationError("Repo id must use alphanumeric chars")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = save_tiny(tmp_path_factory.mktemp("machine-of-somebody") / "base")
    out = forget(base, EXAMPLE, "ga", tmp_path_factory.mktemp("machine-of-somebody") / "ga", training=SHORT)
    evaluate(out, EXAMPLE, out, limit=2, max_new_tokens=4)
    return out


def test_an_adapter_goes_up_private_without_answers_images_or_paths(run):
    hub = FakeHub()
    done = push(run, "owner/name", base="llava-hf/llava-1.5-7b-hf", hub=hub)
    assert hub.repos == {"owner/name": True}
    assert hub.message == "unsee: ga"
    assert done.done
    assert done.files == {name: len(content) for name, content in hub.files.items()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json"} <= hub.files.keys()
    assert json.loads(hub.files["adapter_config.json"])["base_model_name_or_path"] == "llava-hf/llava-1.5-7b-hf"
    card = hub.files["README.md"].decode()
    assert "base_model: llava-hf/llava-1.5-7b-hf\n" in card
    assert 'from_pretrained("llava-hf/llava-1.5-7b-hf")' in card
    assert not [name for name in hub.files if name.endswith((".jsonl", ".png", ".yaml")) or "scores" in name]
    assert not [name for name, content in hub.files.items() if b"machine-of-somebody" in content]


def test_the_whole_checkpoint(run):
    hub = FakeHub()
    push(run, "owner/name", merged=True, hub=hub, private=False)
    assert hub.repos == {"owner/name": False}
    assert {"model.safetensors", "config.json", "README.md"} <= hub.files.keys()
    assert not [name for name in hub.files if "adapter" in name]
    assert not [name for name, content in hub.files.items() if b"machine-of-somebody" in content]


def test_what_is_asked_for_goes_along(run):
    hub = FakeHub()
    push(run, "owner/name", merged=True, extras=("scores", "responses", "images"), hub=hub)
    assert {"scores.json", "responses.jsonl"} <= hub.files.keys()
    assert [name for name in hub.files if name.startswith("images/")]
    push(run, "owner/name", merged=True, extras=("scores",), hub=hub)
    assert "scores.json" in hub.files
    assert "responses.jsonl" not in hub.files


def test_a_dry_run_asks_nobody(run, capsys):
    class Silent:
        def __getattr__(self, name):
            raise AssertionError(f"a dry run called {name}")

    told = push(run, "owner/name", merged=True, dry_run=True, hub=Silent())
    assert not told.done
    assert "would be uploaded to owner/name (private)" in str(told)
    assert cli.main(["push", str(run), "owner/name", "--merged", "--dry-run", "--public"]) == 0
    said = capsys.readouterr().out
    assert "would be uploaded to owner/name (PUBLIC)" in said
    assert "model.safetensors" in said


@pytest.mark.parametrize(
    ("repo", "more", "message"),
    [
        ("name", {}, "Expected a repository like owner/name"),
        ("owner/name", {}, "which nobody else has. Say its hub id with --base"),
        ("owner/name", {"merged": True, "extras": ("everything",)}, "Expected extras among scores"),
    ],
)
def test_refusals(run, repo, more, message):
    with pytest.raises(UserError, match=message):
        push(run, repo, hub=FakeHub(), **more)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        push(tmp_path, "owner/name", hub=FakeHub())


def test_what_the_hub_refuses_is_said(run):
    with pytest.raises(UserError, match="The hub refused owner/name: Repo id must use"):
        push(run, "owner/name", merged=True, hub=Refusing())
