"""doctor: what it finds in a whole installation, and in broken ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from scripts import lock

from unsee import doctor
from unsee.__main__ import script
from unsee.cli import main
from unsee.models import builtin, smollm2_package
from unsee.workflows.doctor import CACHE, MODULES, versions_tested

ROOT = Path(__file__).parents[2]

REQUIREMENTS = ["torch>=2.7", "numpy<3,>=1.26", 'matplotlib>=3.8; extra == "plots"', 'unsee[plots]; extra == "dev"']


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Have an unsee with few requirements, in a folder of its own."""
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIREMENTS)
    monkeypatch.delenv("UNSEE_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def found(diagnosis, section, name):
    [finding] = [item for item in diagnosis.findings if (item.section, item.name) == (section, name)]
    return finding


def versions(monkeypatch, **given):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: given.get(name) or real(name))


def test_a_whole_installation_works(installed, tmp_path):
    diagnosis = doctor(trial=False)
    assert diagnosis.healthy, str(diagnosis)
    assert str(diagnosis).startswith("unsee doctor: this installation works\nsystem\n")
    assert found(diagnosis, "packaged models", "lab").value == "intact"
    assert "cpu" in found(diagnosis, "device", "used").value or "cuda" in found(diagnosis, "device", "used").value
    assert {item.name for item in diagnosis.findings if item.section == "optional extras"} == {"plots"}
    assert not any(tmp_path.iterdir())


def test_another_version_than_the_tested_one_is_told_and_no_problem(installed):
    versions(installed, numpy="1.99.0")
    finding = found(doctor(trial=False), "packages", "numpy")
    assert (finding.status, finding.value) == ("note", f"1.99.0 (tested: {versions_tested()['numpy']})")


def test_a_build_of_the_tested_version_is_the_tested_version(installed):
    versions(installed, torch=f"{versions_tested()['torch']}+cpu")
    assert found(doctor(trial=False), "packages", "torch").status == "ok"


def test_a_version_out_of_range_is_a_problem_with_its_way_out(installed):
    versions(installed, numpy="1.25.0")
    finding = found(doctor(trial=False), "packages", "numpy")
    assert finding.status == "problem"
    assert 'pip install "numpy<3,>=1.26"' in finding.advice


def test_a_missing_package_is_a_problem_and_a_missing_extra_is_none(installed):
    installed.setattr(metadata, "requires", lambda name: ["no-such>=1", 'no-such-either>=2; extra == "slurm"'])
    diagnosis = doctor(trial=False)
    assert [finding.name for finding in diagnosis.problems] == ["no-such"]
    assert 'pip install "unsee[slurm]"' in found(diagnosis, "optional extras", "slurm").advice


def test_a_package_that_fails_to_import_is_a_finding(installed, tmp_path):
    (tmp_path / "numpy.py").write_text(f"raise OSError('lib.so is not at {Path.home()}/lib/lib.so')")
    installed.delitem(sys.modules, "numpy")
    installed.syspath_prepend(tmp_path)
    finding = found(doctor(trial=False), "packages", "numpy")
    assert finding.status == "problem"
    assert "OSError: lib.so is not at ~/lib/lib.so" in finding.value


def test_without_metadata_packages_are_still_looked_at(installed):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    installed.setattr(metadata, "requires", missing)
    diagnosis = doctor(trial=False)
    assert found(diagnosis, "packages", "unsee").status == "note"
    assert found(diagnosis, "packages", "transformers").status != "problem"


def test_a_damaged_model_is_a_problem(installed, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "model.safetensors").write_bytes(b"x")
    (folder / builtin.HASHES).write_text(json.dumps(dict.fromkeys(builtin.PACKAGED, "0")))
    installed.setattr(builtin, "CHECKPOINTS", folder)
    assert [finding.name for finding in doctor(trial=False).problems] == list(builtin.PACKAGED)


def test_a_model_in_parts_without_its_language_model_is_a_note(installed, tmp_path):
    parts = tmp_path / "lab-smol"
    parts.mkdir()
    (parts / "model.safetensors").write_bytes(b"x")
    (tmp_path / builtin.HASHES).write_text(json.dumps({"lab-smol": hashlib.sha256(b"x").hexdigest()}))
    installed.setattr(builtin, "CHECKPOINTS", tmp_path)
    installed.setattr(builtin, "PACKAGED", ("lab-smol",))
    for there, status, advice in ((False, "note", "make smol"), (True, "ok", "")):
        installed.setattr(smollm2_package, "installed", lambda there=there: there)
        finding = found(doctor(trial=False), "packaged models", "lab-smol")
        assert finding.status == status
        assert advice in finding.advice


def test_folders_that_cannot_be_written_are_problems(installed, tmp_path):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    installed.setattr("tempfile.TemporaryFile", refuse)
    installed.setenv("HF_HOME", str(tmp_path))
    diagnosis = doctor("somewhere", trial=False)
    assert [finding.name for finding in diagnosis.problems] == ["run folders", "shared cache"]
    assert "Permission denied" in found(diagnosis, "folders", "run folders").value
    assert found(diagnosis, "folders", "hub cache").status == "note"


def test_private_paths_stay_out_of_the_output(installed, capsys):
    installed.setenv("HF_HOME", str(Path.home() / "models"))
    assert main.main(["doctor", "--no-trial", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["healthy"] is True
    assert str(Path.home()) not in text.replace(str(ROOT), "")
    assert str(Path.cwd()) not in text


def test_the_exit_code_tells_of_problems(installed, capsys):
    versions(installed, numpy="1.25.0")
    assert main.main(["doctor", "--no-trial"]) == 1
    assert capsys.readouterr().out.startswith("unsee doctor: problems marked !: 1\n")


def test_a_program_that_cannot_start_still_has_its_doctor(installed, capsys):
    installed.setitem(sys.modules, "unsee.cli.main", None)
    installed.setattr(sys, "argv", ["unsee", "list", "methods"])
    with pytest.raises(SystemExit, match="Run `unsee doctor`"):
        script()
    assert "unsee cannot start: ModuleNotFoundError" in capsys.readouterr().err
    installed.setattr(sys, "argv", ["unsee", "doctor", "--json"])
    with pytest.raises(SystemExit) as end:
        script()
    assert end.value.code == 1
    assert "findings" in json.loads(capsys.readouterr().out)


def test_a_broken_peft_does_not_end_the_diagnosis(installed):
    installed.setitem(sys.modules, "peft", None)  # importing it raises ImportError
    installed.delitem(sys.modules, "unsee.models.smollm2", raising=False)
    assert found(doctor(trial=False), "packaged models", "lab-smol").value.startswith("intact")


@pytest.mark.slow
def test_a_broken_package_keeps_the_program_from_starting_and_is_named(tmp_path):
    (tmp_path / "yaml.py").write_text("raise RuntimeError('broken on purpose')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    command = [sys.executable, "-m", "unsee", "doctor", "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unsee cannot start: RuntimeError: broken on purpose" in done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert "pyyaml" in [finding["name"] for finding in findings if finding["status"] == "problem"]


@pytest.mark.smoke
@pytest.mark.slow
def test_the_trial_runs_on_the_lab_and_tries_fast_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNSEE_CACHE", raising=False)
    diagnosis = doctor()
    assert diagnosis.healthy, str(diagnosis)
    assert found(diagnosis, "trial", "lab").value.startswith("unlearning and evaluation work")
    paths = {item.name: item.value for item in diagnosis.findings if item.section == "fast paths"}
    assert paths["prefetch"] == "on"
    assert paths["prefix_cache"].startswith("on for"), paths  # the latest model class of this process
    assert paths["recompute"].startswith("on for"), paths  # the latest model class of this process
    assert not any(tmp_path.iterdir())


def test_a_trial_that_fails_is_a_problem(installed):
    def broken(folder):
        raise RuntimeError("update() got an unexpected keyword argument")

    installed.setattr(sys.modules["unsee.workflows.doctor"], "_unlearn_and_evaluate", broken)
    diagnosis = doctor()
    assert [finding.section for finding in diagnosis.problems] == ["trial"]
    assert "RuntimeError: update() got" in diagnosis.problems[0].value


def test_nothing_is_tried_where_something_is_broken_already(installed):
    versions(installed, numpy="1.25.0")
    installed.setattr(
        sys.modules["unsee.workflows.doctor"], "_unlearn_and_evaluate", lambda folder: pytest.fail("was tried")
    )
    assert found(doctor(), "trial", "lab").status == "note"


def test_a_fast_path_that_is_off_says_why_and_what_it_costs(installed):
    from unsee.compat import fast_paths

    off = fast_paths.Status(fast_paths.PATHS["prefix_cache"], "off", reason="TypeError: update()", model="LlavaModel")
    installed.setattr(fast_paths, "status", lambda: [off])
    finding = found(doctor(trial=False), "fast paths", "prefix_cache")
    assert (finding.status, finding.value) == ("note", "off for LlavaModel (TypeError: update())")
    assert finding.advice.startswith("Results are the same, but every question")


def test_the_doctor_needs_no_package_that_may_be_broken():
    code = (
        "import sys, unsee.workflows.doctor, unsee.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {MODULES.get(name, name) for name in versions_tested()}


def test_the_name_of_the_cache_variable_is_the_one_of_the_store():
    from unsee.data import shared_cache

    assert shared_cache.VARIABLE == CACHE


def test_the_console_script_is_the_entry_that_survives():
    assert script.__module__ == "unsee.__main__"
    assert 'unsee = "unsee.__main__:script"' in (ROOT / "pyproject.toml").read_text()


def test_the_tested_versions_are_those_of_the_lock():
    text = lock.TORCH.read_text(), (lock.REQUIREMENTS / "lock.txt").read_text()
    assert lock.TESTED.read_text() == lock.tested(*text)
    assert {"torch", "transformers", "peft", "numpy"} <= versions_tested().keys()
