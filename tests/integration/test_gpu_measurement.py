"""The GPU measurement: parts are bounded, results are kept as they come, and a rehearsal runs every part on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from perf import conventional, gpu, gpu_models, gpu_parts
from perf.record import Record

from unsee.api.request import Prompt
from unsee.errors import UserError
from unsee.inference.batching import collate
from unsee.inference.encoder import encoder
from unsee.training.targets import forget_targets

ROOT = Path(gpu.__file__).parents[1]
EMIT = "import json, sys, time\nemit = lambda n, r: print(json.dumps({'case': n, 'result': r}), flush=True)\n"


def record(tmp_path):
    facts = {"machine": {"device": "a device"}, "settings": {"tiny": False}}
    return Record(tmp_path / "x.json", facts)


def run(tmp_path, code, limit=60.0):
    kept = record(tmp_path)
    gpu.run_part("lab", [sys.executable, "-c", EMIT + code], limit, kept)
    return json.loads((tmp_path / "x.json").read_text())["lab"]


def test_results_of_a_part_are_read_between_other_lines(tmp_path):
    entry = run(tmp_path, "print('chatter'); print('[1]'); emit('a', {'seconds': 1})")
    assert entry["status"] == "done"
    assert entry["cases"] == {"a": {"seconds": 1}}


def test_a_part_that_breaks_keeps_what_it_had_and_says_why(tmp_path):
    entry = run(tmp_path, "emit('a', {'x': 1}); raise SystemExit('the wire is cut')")
    assert entry["status"] == "failed: the wire is cut"
    assert entry["cases"] == {"a": {"x": 1}}
    assert gpu._failed(entry)


def test_a_part_is_stopped_at_its_limit_with_the_processes_it_started(tmp_path):
    start = time.monotonic()
    code = "import subprocess; subprocess.Popen(['sleep', '50']); emit('a', {'x': 1}); time.sleep(50)"
    entry = run(tmp_path, code, limit=4)
    assert time.monotonic() - start < 30
    assert entry["status"] == "stopped after 4 s"
    assert entry["cases"] == {"a": {"x": 1}}


def test_parts_can_be_chosen_and_skipped():
    assert gpu.chosen_parts("", "lab,tests") == ["llava_1_5_7b", "qwen2_5_vl_7b", "perf"]
    assert gpu.chosen_parts("tests,lab", "") == ["lab", "tests"]
    with pytest.raises(UserError, match=r"No part is called labb. There are: llava_1_5_7b"):
        gpu.chosen_parts("labb", "")


def test_the_limits_of_all_parts_leave_nine_minutes():
    assert gpu.TOTAL <= 540
    assert sum(gpu.PARTS.values()) < gpu.TOTAL + 60  # the total is a limit of its own


def test_without_a_gpu_the_way_to_rehearse_is_said(monkeypatch):
    monkeypatch.setattr(gpu, "machine", lambda _: {"device": "x", "cuda": ""})
    with pytest.raises(SystemExit, match="--device cpu --tiny"):
        gpu.main(["run"])


def test_no_time_left_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "machine", lambda _: {"device": "x", "cuda": ""})
    out = tmp_path / "x.json"
    assert gpu.main(["run", "--device", "cpu", "--only", "lab", "--seconds", "0", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["lab"]["status"] == "left out: no time left"


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (ValueError("something else"), "error"),
    ],
)
def test_too_little_memory_is_a_result(capsys, error, key):
    def work():
        raise error

    gpu_parts.guarded("npo.conventional", work)
    row = json.loads(capsys.readouterr().out)
    assert row["case"] == "npo.conventional"
    assert str(error)[:20] in row["result"][key]
    assert gpu._failed({"status": "done", "cases": {"x": row["result"]}}) == (key == "error")


def test_the_table_shows_both_sides_and_the_estimate():
    step = {"repetitions": 3, "wall_seconds": 1}
    cases = {
        "model": {"parameters": 7_000_000_000},
        "npo.unsee": {**step, "seconds": {"median": 0.5}, "peak_gib": 20.5},
        "npo.conventional": {**step, "seconds": {"median": 1.5}, "peak_gib": 50.0},
        "npo.estimate": {"training_gib": 21.0, "memory_gib": 22.0},
        "kl.conventional": {"out_of_memory": "OutOfMemoryError: CUDA out of memory"},
        "evaluation.unsee": {"questions_per_second": 30.0, "peak_gib": 16.0},
        "evaluation.conventional": {"questions_per_second": 3.0, "peak_gib": 15.0},
    }
    content = {
        "llava_1_5_7b": {"status": "done", "seconds": 99, "cases": cases},
        "lab": {"status": "done", "seconds": 9, "cases": {"npo": {"forget_seconds": 3, "verdict": "forgot them"}}},
        "machine": {"device": "a device", "torch": "2"},
        "settings": {"tiny": False},
    }
    lines = gpu.table(content).splitlines()
    assert "| npo | 0.5 s/step | 1.5 s/step | 3.00 | 20.5 | 21.0 | 50.0 |  |" in lines
    assert "| evaluation | 30 questions/s | 3 questions/s | 10.00 | 16.0 |  | 15.0 |  |" in lines
    assert any("out of memory" in line and line.startswith("| kl |") for line in lines)
    assert "7,000,000,000 parameters" in lines
    assert "| npo | 3 | forgot them |" in lines


@pytest.mark.parametrize(
    ("name", "billions", "image_tokens"), [("llava_1_5_7b", 7.06, 576), ("qwen2_5_vl_7b", 8.29, 324)]
)
def test_the_large_models_have_the_real_sizes(name, billions, image_tokens):
    import transformers

    size = gpu_models.SIZES[name]
    config = size.config(size.built_processor)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    question = gpu_models.questions(size.image, 1)[0]
    ids = encoder(size.built_processor, size.known_family()).row(Prompt.of(question))["input_ids"]
    assert int((ids == config.image_token_id).sum()) == image_tokens


def test_the_conventional_way_encodes_the_keys_of_every_family(tmp_path):
    size = gpu_models.TINY["qwen2_5_vl_7b"]
    bench = gpu_parts.Bench(size, gpu_models.write_data(tmp_path / "data", size.image, 1), size.model(), tiny=True)
    session = bench.session(tmp_path, gpu_parts.Training(**gpu_parts.lora_settings()))
    targets = forget_targets(session)[:3]
    inputs, labels_bt = conventional.encode(session, targets)
    assert len(inputs["image_grid_thw"]) == 3
    ours = conventional.mean_nll(session.model(**inputs).logits, labels_bt)
    batch = collate(session, targets)
    theirs = torch.nn.functional.cross_entropy
    logits = session.model(**batch.inputs).logits
    rows = [theirs(logits[i, :-1][row[1:] != -100], row[1:][row[1:] != -100]) for i, row in enumerate(batch.labels_bt)]
    assert torch.allclose(ours, torch.stack(rows).mean(), atol=1e-5)


def test_the_data_have_eight_questions_per_image_and_text_for_the_mask(tmp_path):
    folder = gpu_models.write_data(tmp_path / "data", 16, 2)
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    by_role = {role: [row for row in rows if row["role"] == role] for role in ("forget", "retain", "retain_text")}
    assert {role: len(found) for role, found in by_role.items()} == {"forget": 16, "retain": 16, "retain_text": 16}
    assert len({row["image"] for row in by_role["forget"]}) == 2
    assert len({row["question"] for row in by_role["forget"]}) == 16


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_runs_every_part(tmp_path):
    out = tmp_path / "x.json"
    code = gpu.main(["run", "--device", "cpu", "--tiny", "--out", str(out)])
    content = json.loads(out.read_text())
    assert {part: content[part]["status"] for part in gpu.PARTS} == dict.fromkeys(gpu.PARTS, "done")
    wanted = {f"{case}.{side}" for case in (*gpu_parts.LORA, *gpu_parts.MASKS) for side in gpu.SIDES}
    for part in gpu.MODELS:
        cases = content[part]["cases"]
        assert wanted | {"model", "evaluation.unsee", "evaluation.conventional"} == cases.keys()
        assert not [name for name, case in cases.items() if {"error", "out_of_memory"} & case.keys()]
    assert content["lab"]["cases"]["reject"]["steps"] == 2
    assert content["lab"]["cases"]["reject"]["verdict"]
    assert content["perf"]["cases"]["npo_lora"]["speedup"] > 0
    assert code == 0
    assert "no measurement" in out.with_suffix(".md").read_text()
    assert gpu.main(["table", str(out)]) == 0


def test_the_script_passes_its_options_on():
    done = subprocess.run(
        [str(ROOT / "scripts/gpu.sh"), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert "--skip" in done.stdout
