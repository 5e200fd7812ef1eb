"""What goes up to the hub: nothing without asking, private, no answers and images, no path of this machine."""

# ruff: noqa: RUF001 - scripts other than Latin
from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HFValidationError

from unsee import config, evaluate, forget, push
from unsee.api import Kind, registry
from unsee.cli import main
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.data.splits import Narrowed
from unsee.errors import UserError
from unsee.exporting import export, private_search
from unsee.models import model_card
from unsee.testing.tiny import save_tiny
from unsee.utils.markdown import code
from unsee.utils.parsing import read_object

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 1, "stop": "never", "max_new_tokens": 4}


class FakeHub:
    """Remembers what would be on the hub."""

    def __init__(self) -> None:
        self.repos: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.message = ""

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.repos.setdefault(repo_id, private)

    def repo_info(self, repo_id):
        return SimpleNamespace(private=self.repos[repo_id])

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


def test_scores_are_published_under_the_data_that_they_were_measured_on(run, tmp_path):
    """They stood under the hash of the data that the model was unlearned on."""
    folder, other = tmp_path / "run", Narrowed(open_benchmark(EXAMPLE), lambda row: row.kind is Kind.NAME)
    shutil.copytree(run, folder)
    own_hash, other_hash = config.data_hash_of(folder), fingerprint(other)
    assert read_object(run / "judged.json")["data"] == own_hash
    assert f"name: data {own_hash[:16]}" in model_card.card(folder)
    evaluate(folder, other, folder, limit=1, max_new_tokens=4, progress=False)
    card = model_card.card(folder)
    assert f"Measured on other data (hash `{other_hash[:16]}`)" in card
    assert f"name: data {other_hash[:16]}" in card
    assert f"name: data {own_hash[:16]}" not in card
    [log] = export(folder, "inspect", tmp_path / "log")
    assert read_object(log)["eval"]["dataset"]["name"] == f"data {other_hash[:16]}"


def test_an_adapter_goes_up_private_without_answers_images_or_paths(run):
    hub = FakeHub()
    done = push(run, "owner/name", base="llava-hf/llava-1.5-7b-hf", hub=hub)
    assert hub.repos == {"owner/name": True}
    assert hub.message == "unsee: upload an unlearned model"  # not the folder's name, which may name somebody
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


def test_a_repository_that_is_public_already_is_used_only_when_asked_for(run):
    hub = FakeHub()
    hub.repos["owner/name"] = False
    with pytest.raises(UserError, match="is public, so everybody could read"):
        push(run, "owner/name", merged=True, hub=hub)
    assert not hub.files
    assert "(PUBLIC)" in str(push(run, "owner/name", merged=True, private=False, hub=hub))
    assert hub.files


def test_a_repository_that_is_private_stays_so(run):
    hub = FakeHub()
    hub.repos["owner/name"] = True
    assert "(private)" in str(push(run, "owner/name", merged=True, private=False, hub=hub))


def test_what_is_asked_for_goes_along(run):
    hub = FakeHub()
    push(run, "owner/name", merged=True, extras=("scores", "responses", "images"), hub=hub)
    assert {"scores.json", "responses.jsonl"} <= hub.files.keys()
    assert [name for name in hub.files if name.startswith("images/")]
    push(run, "owner/name", merged=True, extras=("scores",), hub=hub)
    assert "scores.json" in hub.files
    assert "responses.jsonl" not in hub.files


def test_pictures_that_are_gone_are_said(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    rows = [json.loads(line) for line in (copy / "responses.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "image": row["image"] and "images/0123456789abcdef.png"}) for row in rows]
    (copy / "responses.jsonl").write_text("\n".join(lines) + "\n")
    hub = FakeHub()
    with pytest.raises(UserError, match="0123456789abcdef.png, which .* was asked about, is gone. Leave images out"):
        push(copy, "owner/name", merged=True, extras=("images",), hub=hub)
    assert not hub.files


def test_answers_of_an_evaluation_that_was_broken_off_do_not_go(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "judged.json").write_text('{"unfinished": 99}')
    hub = FakeHub()
    with pytest.raises(UserError, match="broken off after 16 of 99 answers"):
        push(copy, "owner/name", merged=True, extras=("responses",), hub=hub)
    assert not hub.files


def test_some_of_the_answers_do_not_tell_what_to_search_for(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "judged.json").write_text('{"unfinished": 9}')
    (copy / "responses.jsonl").write_text("")
    hub = FakeHub()
    push(copy, "owner/name", merged=True, hub=hub, dry_run=True)  # the data tell
    record = copy / "run.yaml"
    record.write_text(record.read_text().replace(str(EXAMPLE), "<object>"))
    with pytest.raises(UserError, match="broken off after 0 of 9 answers"):
        push(copy, "owner/name", merged=True, hub=hub)
    assert not hub.files


def test_a_dry_run_asks_nobody(run, capsys):
    class Silent:
        def __getattr__(self, name):
            raise AssertionError(f"a dry run called {name}")

    told = push(run, "owner/name", merged=True, dry_run=True, hub=Silent())
    assert not told.done
    assert "would be uploaded to owner/name (private, if it is new)" in str(told)
    assert main.main(["push", str(run), "owner/name", "--merged", "--dry-run", "--public"]) == 0
    said = capsys.readouterr().out
    assert "would be uploaded to owner/name (PUBLIC, if it is new)" in said
    assert "model.safetensors" in said


@pytest.mark.parametrize(
    ("repo", "more", "message"),
    [
        ("name", {}, "Expected a repository like owner/name"),
        ("./name", {"merged": True, "dry_run": True}, "Expected a repository like owner/name"),
        (
            "owner/name",
            {"base": "/home/somebody/llava"},
            r"Expected the hub id of the base .*, got '/home/somebody/llava'",
        ),
        ("owner/name", {"base": "./llava"}, "Expected the hub id of the base"),
        ("owner/name", {"base": "owner/llava", "merged": True}, "Leave one of them out"),
        ("owner/name", {}, "is not on the hub. Give its hub id with --base"),
        ("owner/name", {"merged": True, "extras": ("everything",)}, "Expected extras among scores"),
    ],
)
def test_refusals(run, repo, more, message):
    with pytest.raises(UserError, match=message):
        push(run, repo, hub=FakeHub(), **more)


def test_a_base_of_a_run_without_an_adapter_is_refused(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "model" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="has none. Leave it out"):
        push(copy, "owner/name", base="owner/llava", hub=FakeHub())


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        push(tmp_path, "owner/name", hub=FakeHub())


def test_what_the_hub_refuses_is_said(run):
    with pytest.raises(UserError, match="The hub refused owner/name: Repo id must use"):
        push(run, "owner/name", merged=True, hub=Refusing())


@pytest.fixture
def planted(run, tmp_path):
    """Return a copy of the run with things beside the weights that must not go."""
    out = shutil.copytree(run, tmp_path / "planted")
    (out / "model" / ".env").write_text("HF_TOKEN=x")
    (out / "model" / ".README.md.k1ll3d").write_text("torn")
    (out / "model" / "notes.txt").write_text("private")
    (out / "model" / "passwd").symlink_to("/etc/passwd")
    return out


@pytest.mark.parametrize("more", [{"base": "o/b"}, {"merged": True}])
def test_only_names_on_the_list_go(planted, more):
    hub = FakeHub()
    done = push(planted, "owner/name", hub=hub, **more)
    assert not hub.files.keys() & {".env", ".README.md.k1ll3d", "notes.txt", "passwd", ".unsee-owned"}
    assert done.left_out == (".README.md.k1ll3d", ".env", "notes.txt", "passwd")
    assert "stays here: .README.md.k1ll3d, .env, notes.txt, passwd" in str(done)


def test_a_link_under_a_name_on_the_list_is_refused(planted):
    (planted / "model" / "merges.txt").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=r"merges.txt in .* is a link"):
        push(planted, "owner/name", base="o/b", hub=FakeHub())


def test_scores_go_without_the_ids_of_rows(run):
    hub = FakeHub()
    assert "value_by_index" in (run / "scores.json").read_text()
    push(run, "owner/name", merged=True, extras=("scores",), hub=hub)
    scores = json.loads(hub.files["scores.json"])
    assert scores
    assert all("value_by_index" not in score and "value" in score for score in scores.values())


def secret(kind):
    rows = [json.loads(line) for line in (EXAMPLE / "data.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row.get("private"))
    return {"private": row["private"]["name"][0], "entity": row["entity"]}[kind]


@pytest.mark.parametrize("kind", ["private", "entity"])
@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("adapter_config.json", lambda text, old: json.dumps({**json.loads(old), "note": {text: "Ann"}})),
        ("processor_config.json", lambda text, old: json.dumps({**json.loads(old), "x": [text.upper()]})),
        ("chat_template.jinja", lambda text, old: old + f"{{# {text} #}}"),
        ("rmuse-7.json", lambda text, old: json.dumps([f"&lt;{text}&gt;"])),
    ],
)
def test_what_holds_a_private_string_or_an_entity_does_not_go(run, tmp_path, kind, file, write):
    for name, text in (("copy", secret(kind)), ("harmless", "xyzzy")):
        place = shutil.copytree(run, tmp_path / name) / "model" / file
        place.write_text(write(text, place.read_text() if place.exists() else ""))
    hub = FakeHub()
    with pytest.raises(UserError, match=f"{file} holds what the data call private or an id: "):
        push(tmp_path / "copy", "owner/name", base="o/b", hub=hub)
    assert hub.repos == {}
    push(tmp_path / "copy", "owner/name", base="o/b", hub=FakeHub(), allow=private_search.strings_of(run))
    push(tmp_path / "harmless", "owner/name", base="o/b", hub=FakeHub())


PLUGIN = """
from unsee.benchmarks.folder import Folder


class Own(Folder):
    name = "own_layout"
"""


def test_data_of_a_plugin_are_searched_and_not_taken_for_gone(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_ADDED", {})
    out = shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "own_layout.py").write_text(PLUGIN)
    record = config.read_mapping(out / "run.yaml")
    changed = {**record, "benchmark": "own_layout", "plugins": [str(tmp_path / "own_layout.py")]}
    (out / "run.yaml").write_text(json.dumps(changed))
    words = ["push", str(out), "owner/name", "--merged", "--dry-run"]
    assert main.main(words) == 2
    assert f"--plugin {tmp_path / 'own_layout.py'}" in capsys.readouterr().err
    assert main.main([*words, "--plugin", str(tmp_path / "own_layout.py")]) == 0
    assert "are gone" not in capsys.readouterr().err


def test_what_cannot_be_searched_does_not_go(run, tmp_path, capsys):
    out = shutil.copytree(run, tmp_path / "copy")
    (out / "run.yaml").write_text((out / "run.yaml").read_text().replace(str(EXAMPLE), str(tmp_path / "gone")))
    push(out, "owner/name", base="o/b", hub=FakeHub())  # its answers say what is private
    assert f"The data of {out} are gone (No data at " in capsys.readouterr().err
    line, *_ = (out / "responses.jsonl").read_text().splitlines()
    (out / "responses.jsonl").write_text(line + "\n")  # as of an evaluation with a limit
    names = json.loads((out / "vocabulary.json").read_text())["names"]
    assert len(names) > 1
    spellings = {form for entity, forms in names.items() for form in (entity, *forms)}
    assert {form for form in spellings if len(form) >= private_search.SHORTEST} <= private_search.strings_of(out)
    (out / "responses.jsonl").unlink()
    with pytest.raises(UserError, match="cannot be searched for private strings before it goes"):
        push(out, "owner/name", base="o/b", hub=FakeHub())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("这是张伟，来自上海。", "张伟"),
        ("This is Jose\u0301 Mari\u0301a.", "José María"),
        ("This is Ada\n  Lovell.", "Ada Lovell"),
        ("Это Анна в Осло", "Анна"),
        ("**Ada&nbsp;Lovell**", "Ada Lovell"),
        ("on 1985/03/12", "1985-03-12"),
    ],
)
def test_strings_are_found_in_every_script_and_spelling(tmp_path, text, name):
    assert private_search._is_telling(name)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match="holds what the data call private"):
        private_search.require_none(tmp_path, {name})
    private_search.require_none(tmp_path, {name}, allowed={name})
    (tmp_path / "README.md").write_text("This is Ada Lovellson, Annatto.")
    private_search.require_none(tmp_path, {name})


def test_weights_that_are_cut_off_do_not_go(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x40" + b"\0" * 7 + b'{"a":')
    with pytest.raises(UserError, match="adapter_model.safetensors is damaged or cut off"):
        private_search.require_none(tmp_path, {"Ada Lovell"})


@pytest.mark.parametrize("text", ["x", "12", "1984", "--", "", "张"])
def test_strings_that_occur_by_chance_are_not_searched(text):
    assert not private_search._is_telling(text)


def test_settings_of_siu_that_name_people_stay_out_of_the_sidecar():
    settings = {"substitutes": {"ada": "Ann Lee"}, "descriptions": {"ada": "a woman called Ada"}, "alpha": 0.5}
    assert model_card.public(settings) == {
        "substitutes": "1 given, not shown",
        "descriptions": "1 given, not shown",
        "alpha": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Say no.", "`Say no.`"),
        ("a `b` c", "``a `b` c``"),
        ("`x`", "`` `x` ``"),
        ("# Head\n\n<script>alert(1)</script>", "`# Head\\n\\n<script>alert(1)</script>`"),
    ],
)
def test_text_does_not_break_out_of_the_card(text, shown):
    assert code(text) == shown
