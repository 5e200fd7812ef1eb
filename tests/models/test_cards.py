"""The model card says what was done, how it was judged and how to open it, and nothing about anybody or any machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from unsee import config, evaluate, forget, load
from unsee.errors import UserError
from unsee.models import builtin, model_card
from unsee.testing.tiny import save_tiny
from unsee.utils.files import hash_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
SHORT = {"max_steps": 1, "stop": "never", "max_new_tokens": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    return forget(base, EXAMPLE, "npo", tmp_path_factory.mktemp("runs") / "npo", training=SHORT)


@pytest.fixture(scope="module")
def on_lab(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ga"
    return forget("lab", "lab", "ga", out, training={**SHORT, "batch_size": 1})


def head(text):
    return yaml.safe_load(text.split("---")[1])


def test_card_of_an_adapter_run(run, base):
    text = (run / "model" / "README.md").read_text()
    assert head(text) == {
        "library_name": "peft",
        "pipeline_tag": "image-text-to-text",
        "license": "other",
        "tags": ["unlearning", "unsee"],
    }
    assert "method `npo`" in text
    assert '"beta": 0.1' in text
    assert "- done: 1 steps on 8,192 weights; all steps done" in text
    written = config.read_mapping(run / "run.yaml")
    assert written["record"]["data_hash"][:16] in text
    assert 'PeftModel.from_pretrained(base, "FOLDER")' in text
    assert "## Limits" in text
    assert "None yet" in text


def test_a_record_that_says_nothing_is_unknown(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    written = config.read_mapping(copied / "run.yaml")
    (copied / "run.yaml").write_text(yaml.safe_dump({**written, "record": {}, "result": None}))
    (copied / "scores.json").write_text(json.dumps({"forget.leak": {"value": 0.5, "n": 2, "interval": None}}))
    text = model_card.card(copied)
    assert "Made by unsee (unknown version) with the method `npo`" in text
    assert "(hash `unknown`)" in text
    assert head(text)["model-index"][0]["results"][0]["dataset"]["name"] == "data unknown"


def test_it_names_nobody_and_no_place(run, base):
    text = (run / "model" / "README.md").read_text()
    assert str(base.parent) not in text
    assert str(run.parent) not in text
    rows = [json.loads(line) for line in (EXAMPLE / "data.jsonl").read_text().splitlines()]
    secrets = {row["answer"] for row in rows} | {row["private"]["name"][0] for row in rows if "private" in row}
    assert len(secrets) > 5
    assert not [one for one in secrets if one in text]
    count = json.loads((run / "model" / "unsee.json").read_text())["forgotten"]
    assert f"forget {count} of the entities" in text


def test_a_path_among_the_settings_is_not_shown(tmp_path, monkeypatch):
    settings = {"refusals": "requests/ada/refusals.txt", "instruction": "Do not name him/her."}
    assert model_card._settings_json(settings) == (
        '{"refusals": "a path, not shown", "instruction": "Do not name him/her."}'
    )
    assert model_card._settings_json({"refusals": "/home/somebody/refusals.txt", "floor": float("-inf")}) == (
        '{"refusals": "a path, not shown", "floor": "-inf"}'
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "Ada Lovell").mkdir(parents=True)
    assert model_card._settings_json({"adapter": "runs/Ada Lovell"}) == '{"adapter": "a path, not shown"}'


@pytest.mark.parametrize("adapter", ["/runs/forget-ada-lovell", "ada-lovell"])
@pytest.mark.parametrize(
    ("original", "shown"),
    [
        ("/runs/forget-ada-lovell", "a local model"),
        ("lab", "`lab`"),
        ("llava-hf/llava-1.5-7b-hf", "`llava-hf/llava-1.5-7b-hf`"),
    ],
)
def test_the_folder_of_an_earlier_run_is_not_named(run, tmp_path, original, shown, adapter):
    """An earlier run may be called after whom it forgot."""
    copied = shutil.copytree(run, tmp_path / "run")
    written = config.read_mapping(copied / "run.yaml")
    training = {**written["training"], "adapter": adapter, "parts": ["language", "C:\\lovell"]}
    (copied / "run.yaml").write_text(yaml.safe_dump({**written, "model": original, "training": training}))
    text = model_card.card(copied)
    assert "lovell" not in text
    assert f"- base: {shown} (hash" in text


def test_empty_settings_are_shown_too(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    written = config.read_mapping(copied / "run.yaml")
    written["method"] |= {"refusals": "", "layer": None}
    (copied / "run.yaml").write_text(yaml.safe_dump(written))
    text = model_card.card(copied)
    assert '"layer": null' in text
    assert '"refusals": ""' in text


def test_entities_among_the_settings_are_counted_only():
    assert model_card._settings_json({"substitutes": {"ada": "Jo Field"}, "descriptions": {}}) == (
        '{"substitutes": "1 given, not shown", "descriptions": {}}'
    )


def test_scores_come_with_intervals_once_there_are_some_and_the_weights_keep_their_hash(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "npo")
    before = hash_folder(out / "model", without=(model_card.CARD,))
    scores = evaluate(out, EXAMPLE, out, limit=4, max_new_tokens=4)
    text = (out / "model" / "README.md").read_text()
    score = scores["unseen.leak"]
    assert f"| unseen | leak | {score.value:.3f} |" in text
    forget_score = scores["forget.clean"]
    low, high = forget_score.interval
    assert f"| forget | clean | {forget_score.value:.3f} | {low:.3f} to {high:.3f} | {forget_score.n} |" in text
    assert "None yet" not in text
    assert hash_folder(out / "model", without=(model_card.CARD,)) == before


def test_scores_are_the_hubs_model_index(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    scores = {
        "unseen.leak": {"value": 0.0625, "n": 16, "interval": None},
        "unseen.clean": {"value": None, "n": 0, "interval": None},
        "retain.rougeL": {"value": 0.5, "n": 3, "interval": None},
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    data = ModelCard(model_card.card(folder)).data
    (result,) = data.eval_results
    assert (result.metric_name, result.metric_type, result.metric_value) == ("unseen.leak", "leak", 0.0625)
    assert result.dataset_name.startswith("data ")


def test_judging_a_model_elsewhere_leaves_its_card_alone(run, tmp_path):
    before = (run / "model" / "README.md").read_text()
    evaluate(run, EXAMPLE, tmp_path / "elsewhere", limit=1, max_new_tokens=4, images_dir=tmp_path)
    assert (run / "model" / "README.md").read_text() == before


def test_the_licence_of_a_local_base_is_passed_on(base, tmp_path):
    marked = shutil.copytree(base, tmp_path / "marked")
    (marked / "README.md").write_text("---\nlicense: llama2\ntags: [x]\n---\n# A model\nlicense: not this one\n")
    out = forget(marked, EXAMPLE, "ga", tmp_path / "ga", training=SHORT)
    text = (out / "model" / "README.md").read_text()
    assert head(text)["license"] == "llama2"
    assert "licence (`llama2`) holds" in text


@pytest.mark.parametrize("base", ["/gone/home/ada/model", "../ada/model", "C:\\ada\\model"])
def test_a_base_at_a_place_is_not_named(tmp_path, base):
    """The folder of the base may be gone, or on another machine."""
    assert "base_model" not in model_card._head({"model": base, "record": {}}, tmp_path / "scores.json", adapter=False)


def test_an_adapter_says_what_it_needs_and_the_merged_checkpoint_needs_nothing(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    file = moved / "model" / "unsee.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ancestor": "first", "quantization": "nf4"}))
    alone, whole = model_card.card(moved), model_card.card(moved, whole=True)
    assert "beside its base held in `nf4`: open the base with the same quantisation" in alone
    assert "both adapters are needed" in alone
    assert "nf4" not in whole
    assert "both adapters" not in whole


def test_a_full_run_says_so(base, tmp_path):
    training = {**SHORT, "tune": "full", "parts": "projector"}
    text = (forget(base, EXAMPLE, "ga", tmp_path / "full", training=training) / "model" / "README.md").read_text()
    assert head(text)["library_name"] == "transformers"
    assert 'AutoModelForImageTextToText.from_pretrained("FOLDER")' in text


class TestPackagedBase:
    """A run on a packaged model survives a move of the environment."""

    def test_its_name_is_stored_and_peft_gets_a_folder(self, on_lab):
        assert json.loads((on_lab / "model" / "unsee.json").read_text())["base"] == "lab"
        adapter = json.loads((on_lab / "model" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(builtin.CHECKPOINTS / "lab")
        assert config.read(on_lab / "run.yaml").model == "lab"

    @pytest.mark.parametrize("stored", ["lab", "/gone/lib/site-packages/unsee/lab/checkpoints/lab"])
    def test_it_opens_from_a_moved_environment(self, on_lab, tmp_path, stored):
        moved = shutil.copytree(on_lab, tmp_path / "moved") / "model"
        adapter = json.loads((moved / "adapter_config.json").read_text())
        gone = "/gone/lib/site-packages/unsee/lab/checkpoints/lab"
        (moved / "adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": gone}))
        sidecar = json.loads((moved / "unsee.json").read_text())
        (moved / "unsee.json").write_text(json.dumps({**sidecar, "base": stored}))
        assert load(moved).base == stored

    def test_a_foreign_folder_that_is_gone_is_not_the_lab(self, on_lab, tmp_path):
        moved = shutil.copytree(on_lab, tmp_path / "moved") / "model"
        sidecar = json.loads((moved / "unsee.json").read_text())
        (moved / "unsee.json").write_text(json.dumps({**sidecar, "base": "/gone/checkpoints/lab"}))
        with pytest.raises(UserError, match="No model at /gone/checkpoints/lab"):
            load(moved)

    def test_names_and_folders(self, tmp_path):
        assert builtin.name_of("lab-gold") == "lab-gold"
        assert builtin.name_of(builtin.CHECKPOINTS / "lab") == "lab"
        (tmp_path / "unsee" / "lab" / "checkpoints" / "lab").mkdir(parents=True)
        assert builtin.name_of(tmp_path / "unsee" / "lab" / "checkpoints" / "lab") == ""
        assert builtin.name_of("owner/lab") == ""
        assert builtin.resolve("owner/lab") == "owner/lab"
