"""Opening a benchmark: by layout, by name, from the hub; its settings, which stand in the run; tables in every published form."""

from __future__ import annotations

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
import yaml

import unsee
from fixtures import mllmu as fixtures_mllmu
from fixtures import umu
from fixtures.benchmarks import fixtures
from unsee import config
from unsee.api.benchmark import Hub
from unsee.benchmarks.icu import ICU
from unsee.cli.main import main
from unsee.config import Run
from unsee.data import arrow
from unsee.data.arrow import ArrowTable, DatasetFolder
from unsee.data.fingerprint import fingerprint
from unsee.data.open import benchmark_arguments, open_benchmark
from unsee.data.records import Gathered, Record, locate_file, named_table
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.workflows.check import check
from unsee.workflows.grid import read_grid

RATIO_10 = {"name": "mllmu", "ratio": 10}


@pytest.fixture(scope="module")
def mllmu(tmp_path_factory):
    place = tmp_path_factory.mktemp("mllmu")
    fixtures_mllmu.build(place)
    return place


@pytest.fixture
def fake_hub(monkeypatch, mllmu):
    """Serve the fixture as the hub's data set; return what was asked for."""
    from datasets import Dataset

    asked = []

    def load_dataset(name, config, *, split):
        asked.append((name, config, split))
        if not (mllmu / config).is_dir():
            raise ValueError(f"BuilderConfig '{config}' not found. Available: ['forget_5']")
        return Dataset(pyarrow.parquet.read_table(mllmu / config))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_a_layout_that_nobody_knows_is_told_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        UserError,
        match=r"(?s)Nothing that unsee knows lies at .*clear: folders forget01.*folder: one table.*--benchmark NAME",
    ):
        open_benchmark(tmp_path)


def test_an_ambiguous_layout_asks_which_it_is(tmp_path):
    known = fixtures()
    known["fiubench"].build(tmp_path)
    known["offside"].build(tmp_path)
    with pytest.raises(
        UserError, match="several benchmarks are; say which it is: --benchmark fiubench or --benchmark offside"
    ):
        open_benchmark(tmp_path)
    assert open_benchmark(tmp_path, "fiubench").name == "fiubench"


def test_a_generic_layout_goes_last(tmp_path):
    fixtures()["fiubench"].build(tmp_path)
    (tmp_path / "data.jsonl").write_text("{}")
    assert open_benchmark(tmp_path).name == "fiubench"


def test_a_damaged_clone_is_recognised_nevertheless(mllmu, tmp_path):
    """Recognition reads one file's end and no other: what is missing elsewhere is said by the benchmark, not by the frame."""
    shutil.copytree(mllmu / "forget_5", tmp_path / "forget_5")
    with pytest.raises(UserError, match=r"has no retain_95: expected a folder retain_95/ with train-\*\.parquet"):
        open_benchmark(tmp_path).examples("train")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "mllmu", "ratio": 20}, "benchmark mllmu: ratio must be one of 5, 10, 15, got 20"),
        ({"name": "mllmu", "ratio": "10"}, "ratio must be one of 5, 10, 15, got '10'"),
        ({"name": "mllmu", "raito": 10}, "Unknown setting of benchmark mllmu 'raito'. Did you mean ratio"),
        ({"name": "mllmu", "protocol": "release"}, "protocol must be one of corrected, released"),
        ({"name": 3}, "benchmark: name must be text, got 3"),
        ({"name": "mlmu"}, "Unknown benchmark 'mlmu'. Did you mean mllmu"),
    ],
)
def test_settings_are_typed(mllmu, given, message):
    with pytest.raises(UserError, match=message):
        open_benchmark(mllmu, given)


def test_both_forms_of_a_benchmark_stand_in_a_run(tmp_path):
    assert Run.from_mapping({"benchmark": "mllmu"}).benchmark == "mllmu"
    run = Run.from_mapping({"benchmark": RATIO_10})
    config.write(tmp_path / "run.yaml", run, record={})
    assert config.read(tmp_path / "run.yaml").benchmark == RATIO_10
    with pytest.raises(UserError, match="benchmark must be text"):
        Run.from_mapping({"benchmark": ["mllmu"]})


def test_options_win_over_the_file_and_another_benchmark_drops_the_settings():
    base = {"benchmark": RATIO_10}
    assert config.merge(base, {"benchmark": {"ratio": 15}})["benchmark"] == {"name": "mllmu", "ratio": 15}
    assert config.merge(base, {"benchmark": "mllmu"})["benchmark"] == RATIO_10
    assert config.merge(base, {"benchmark": "umu"})["benchmark"] == "umu"
    assert config.merge({"benchmark": ""}, {"benchmark": {"ratio": 15}})["benchmark"] == {"ratio": 15}
    assert config.merge({"benchmark": {"ratio": 15}}, {"benchmark": "mllmu"})["benchmark"] == {
        "name": "mllmu",
        "ratio": 15,
    }


def test_eval_opens_the_data_as_the_run_did_unless_told_otherwise(tmp_path):
    earlier = Run(data=str(tmp_path), benchmark={**RATIO_10, "protocol": "released"})
    assert config.benchmark_of(Run(), earlier) == earlier.benchmark
    assert config.benchmark_of(Run(data=str(tmp_path)), earlier) == earlier.benchmark
    assert config.benchmark_of(Run(benchmark={"ratio": 5}), earlier) == {**earlier.benchmark, "ratio": 5}
    assert config.benchmark_of(Run(data="elsewhere"), earlier) == ""


def test_eval_asks_as_the_run_says_unless_told_otherwise(tmp_path):
    earlier = Run(data=str(tmp_path), eval={"limit": 3, "max_new_tokens": 9})
    assert config.eval_of(Run(), earlier) == earlier.eval
    assert config.eval_of(Run(data=str(tmp_path), eval={"limit": None}), earlier) == {
        "limit": None,
        "max_new_tokens": 9,
    }
    assert config.eval_of(Run(data="elsewhere"), earlier) == {}


def test_what_is_described_opens_the_same(mllmu):
    opened = open_benchmark(mllmu, {"ratio": 10})
    spelled = benchmark_arguments(opened)
    assert spelled["name"] == "mllmu"
    assert spelled["tasks"] == ["classification", "generation", "cloze"]
    assert open_benchmark(mllmu, spelled).settings == opened.settings
    assert benchmark_arguments(open_benchmark("lab")) == "lab"


def test_settings_go_from_the_command_line_into_the_run_and_on_to_eval(mllmu, tmp_path, capsys):
    model, run = save_tiny(tmp_path / "model"), tmp_path / "run"
    small = [
        "training.max_steps=1",
        "training.batch_size=1",
        "training.rank=2",
        "training.stop=never",
        "benchmark.ratio=10",
    ]
    words = [word for setting in (*small, "benchmark.tasks=cloze") for word in ("--set", setting)]
    command = [
        "forget",
        "--model",
        str(model),
        "--data",
        str(mllmu),
        "--method",
        "ga",
        "--out",
        str(run),
        "--ask",
        "0",
        "--seed",
        "3",
        *words,
    ]
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0, "the run that is there has the same settings"
    assert main([*command, "--resume", "--set", "benchmark.ratio=5"]) == 2
    assert "benchmark, data_hash differ" in capsys.readouterr().err
    assert yaml.safe_load((run / "run.yaml").read_text())["benchmark"]["ratio"] == 10
    short = ["--set", "eval.max_new_tokens=2", "--set", "eval.limit=2"]
    assert main(["eval", "--model", str(run), "--data", str(mllmu), *short]) == 0
    responses = [json.loads(line) for line in (run / "responses.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in responses} == {"cloze"}
    assert {row["entity"] for row in responses if row["role"] == "forget"} == {"101", "102"}
    assert yaml.safe_load((run / "run.yaml").read_text())["seed"] == 3
    keys = (run / "responses.keys.jsonl").read_bytes()
    unsee.Run(run).evaluate(max_new_tokens=2, limit=2)
    assert (run / "responses.keys.jsonl").read_bytes() == keys, "both ask with the seed of the run"
    capsys.readouterr()


def test_settings_are_an_axis_of_a_sweep(mllmu, tmp_path):
    base = {"model": "lab", "data": str(mllmu), "method": "ga", "benchmark": {"name": "mllmu", "tasks": ["cloze"]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"base": base, "axes": {"benchmark.ratio": [5, 10]}}))
    cells = read_grid(tmp_path / "grid.yaml").cells
    assert [cell.run.benchmark for cell in cells] == [{**base["benchmark"], "ratio": ratio} for ratio in (5, 10)]
    assert len({cell.name for cell in cells}) == 2


def test_check_takes_settings_of_the_benchmark_only(mllmu, capsys):
    assert main(["check", str(mllmu), "--set", "benchmark.ratio=15"]) == 0
    assert main(["check", str(mllmu), "--set", "method.beta=1"]) == 2
    assert "sets only the benchmark" in capsys.readouterr().err


def test_a_hub_id_is_fetched_through_datasets(mllmu, fake_hub):
    opened = open_benchmark("MLLMMU/MLLMU-Bench")
    assert fingerprint(opened) == fingerprint(open_benchmark(mllmu))
    assert {config for _, config, _ in fake_hub} == {
        "forget_5",
        "retain_95",
        "Full_Set",
        "ft_Data",
        "Test_Set",
        "Retain_Set",
    }
    assert {(name, split) for name, _, split in fake_hub} == {("MLLMMU/MLLMU-Bench", "train")}
    assert check("somebody/copy", benchmark="mllmu").usable


def test_an_unknown_id_is_told_the_known_ones():
    with pytest.raises(UserError, match=r"owner/name is no folder here, .*therem/CLEAR \(clear\).*--benchmark NAME"):
        open_benchmark("owner/name")
    with pytest.raises(UserError, match="No data at no/such/folder"):
        open_benchmark("no/such/folder")


@pytest.mark.parametrize(
    "error", [ConnectionError("Couldn't reach it"), FileNotFoundError("no such data set"), ValueError("Unknown split")]
)
def test_what_cannot_be_fetched_is_said_with_the_way_out(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("datasets.load_dataset", fails)
    with pytest.raises(
        UserError,
        match=f"(?s)Cannot fetch forget_5 of MLLMMU/MLLMU-Bench .*no folder of that name.*{error}.*git clone .*MLLMU-Bench",
    ):
        open_benchmark(Hub("MLLMMU/MLLMU-Bench").id).examples("train")


def nested(place):
    for folder in place.iterdir():
        for number, file in enumerate(sorted(folder.glob("*.parquet"))):
            (folder / "train").mkdir(exist_ok=True)
            file.rename(folder / "train" / f"{number:04}.parquet")


def single(place):
    for folder in [path for path in place.iterdir() if path.is_dir()]:
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(folder), place / f"{folder.name}.parquet")
        shutil.rmtree(folder)


def saved(place):
    from datasets import Dataset

    for folder in [path for path in place.iterdir() if path.is_dir()]:
        table = pyarrow.parquet.read_table(folder)
        shutil.rmtree(folder)
        Dataset(table).save_to_disk(folder)


def saved_with_splits(place):
    from datasets import Dataset, DatasetDict

    for folder in [path for path in place.iterdir() if path.is_dir()]:
        table = pyarrow.parquet.read_table(folder)
        shutil.rmtree(folder)
        DatasetDict({"train": Dataset(table)}).save_to_disk(folder)


@pytest.mark.parametrize("rearrange", [nested, single, saved, saved_with_splits])
def test_every_published_form_of_a_table_gives_the_same_examples(mllmu, tmp_path, rearrange, capsys):
    place = tmp_path / "data"
    shutil.copytree(mllmu, place)
    (place / "README.md").unlink()
    rearrange(place)
    assert open_benchmark(place).name == "mllmu"
    assert fingerprint(open_benchmark(place)) == fingerprint(open_benchmark(mllmu))
    capsys.readouterr()


def test_large_files_are_mapped_and_give_the_same(mllmu, monkeypatch, tmp_path, capfd):
    before = fingerprint(open_benchmark(mllmu))
    monkeypatch.setattr(arrow, "IN_MEMORY", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    rows = DatasetFolder(mllmu).rows("Test_Set")
    allocated = pyarrow.total_allocated_bytes()
    assert fingerprint(open_benchmark(mllmu)) == before
    assert list(tmp_path.rglob("*.arrow"))
    assert pyarrow.total_allocated_bytes() - allocated < rows.table.nbytes
    capfd.readouterr()


def test_broken_tables_are_user_errors(tmp_path):
    for folder in ("empty", "both/train", "mixed"):
        (tmp_path / folder).mkdir(parents=True)
    table = pyarrow.table({"ID": ["1"]})
    pyarrow.parquet.write_table(table, tmp_path / "both" / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "both" / "train" / "0000.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "mixed" / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table, tmp_path / "mixed" / "train-00001-of-00002.parquet")
    pyarrow.parquet.write_table(table.slice(1), tmp_path / "none.parquet")
    shelf = DatasetFolder(tmp_path)
    for name, message in (
        ("empty", "empty has no shard: expected train-"),
        ("both", "both beside and inside train/"),
        ("mixed", "mixes shards of 1 and of 2"),
        ("none", "has no rows"),
    ):
        with pytest.raises(UserError, match=message):
            shelf.rows(name)
    (tmp_path / "empty" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="no data set that `datasets` has saved"):
        shelf.rows("empty")


def test_images_in_cells_of_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(umu.image_cell(1)["bytes"])
    data = (tmp_path / "a.png").read_bytes()
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    forms = {
        "bytes": pyarrow.array([data]),
        "path": pyarrow.array(["a.png"]),
        "struct": pyarrow.array([{"bytes": data, "path": None}], struct),
        "struct with path": pyarrow.array([{"bytes": None, "path": "a.png"}], struct),
        "list": pyarrow.array([[{"bytes": data, "path": None}]], pyarrow.list_(struct)),
    }
    rows = ArrowTable("t", pyarrow.table(forms), tmp_path)
    images = [image for column in forms for image in rows.images(0, column)]
    assert len({image.key for image in images}) == 1
    assert {image.load().size for image in images} == {(24, 24)}
    assert ArrowTable("t", pyarrow.table({"image": pyarrow.array([None], struct)})).images(0) == []
    missing = ArrowTable("t", pyarrow.table({"image": ["gone.png"]}), tmp_path).images(0)
    assert [image.fault() for image in missing] == ["is missing"]


def test_a_picture_is_not_found_by_its_bare_name_in_another_folder(tmp_path):
    (tmp_path / "img" / "Weapon").mkdir(parents=True)
    for place in ("1.jpg", "img/Weapon/2.jpg"):
        (tmp_path / place).touch()
    assert locate_file("img/Weapon/1.jpg", [tmp_path]) is None
    with pytest.raises(UserError, match="cannot be opened: "):
        locate_file("iVBORw0KGgo" * 400, [tmp_path])
    assert locate_file("dataset/img/Weapon/2.jpg", [tmp_path]) == tmp_path / "img" / "Weapon" / "2.jpg"
    assert locate_file("./1.jpg", [tmp_path]) == locate_file("/home/them/img/1.jpg", [tmp_path]) == tmp_path / "1.jpg"


def test_paths_are_found_as_in_own_tables(tmp_path):
    root, other = tmp_path / "data", tmp_path / "scans"
    for file in (root / "Jose\u0301.png", other / "x.png"):
        file.parent.mkdir()
        file.touch()
    assert locate_file("Jos\u00e9.png", [root]) == root / "Jose\u0301.png"
    assert locate_file("/home/them/Jos\u00e9.png", [root]) == root / "Jose\u0301.png"
    assert locate_file(str(other / "x.png"), [root]) == other / "x.png"
    assert locate_file("../scans/x.png", [root]).samefile(other / "x.png")
    assert locate_file("/home/them/../x.png", [root]) is None


def test_one_file_does_not_stand_for_two_of_another_machine(tmp_path):
    (tmp_path / "1.jpg").touch()
    gathered = Gathered(tmp_path)
    for row, path in enumerate(("/a/img/1.jpg", "/a/img/1.jpg", "1.jpg", "/b/img/1.jpg")):
        with gathered.reading(f"row {row}"):
            gathered.image(path)
    (fault,) = gathered.faults
    assert fault.startswith("row 3: image /b/img/1.jpg and /a/img/1.jpg would both be ")


def test_of_two_tables_of_one_name_none_is_left_unread(tmp_path):
    (tmp_path / "qa.csv").touch()
    assert named_table(tmp_path, "qa") == tmp_path / "qa.csv"
    (tmp_path / "qa.jsonl").touch()
    with pytest.raises(UserError, match=r"holds qa\.jsonl and qa\.csv; keep one of them"):
        named_table(tmp_path, "qa")
    for name in ("profiles.csv", "profiles.jsonl"):
        (tmp_path / name).touch()
    assert ICU.fits(tmp_path), "which benchmark it is can be told nevertheless"


@pytest.mark.parametrize(
    ("value", "texts"), [(1984.0, ("1984",)), (["a", float("nan"), None, " ", 2], ("a", "2")), ("a;b", ("a;b",))]
)
def test_records_read_texts_as_own_tables_do(value, texts):
    assert Record({"x": value}).strings("x") == texts


@pytest.mark.parametrize("value", [True, ["a", True], [["a"]], {"a": 1}, float("inf")])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(UserError, match="x must be a list of texts"):
        Record({"x": value}).strings("x")
