"""White-box attacks: right values of probes, membership scores and patching."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.steering import artefact
from unsee.api import Kind, Role
from unsee.attacks import crossmodal
from unsee.attacks.crossmodal import Crossmodal
from unsee.attacks.membership import Membership, _token_scores, above, auc
from unsee.attacks.patching import Patching, unlearning_depth
from unsee.attacks.perturbation import Perturbation
from unsee.attacks.probes import Probes, _ridge_classes, _shuffle_labels
from unsee.errors import UserError
from unsee.evaluation.teacher_forcing import Fed, private_tokens, teacher_forced
from unsee.models.checkpoint import open_model
from unsee.models.steering import hooks
from unsee.testing.attacks import People, victim
from unsee.testing.tiny import person, save_tiny


def test_depth_is_none_of_the_original_and_all_of_gold(tmp_path):
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    for opened, share in ((target.original, 1.0), (target.gold, 0.0)):
        found = list(Patching().run(replace(target, open=opened)))
        assert list(found[0].recovered.values()) == pytest.approx([share] * len(found[0].recovered), abs=1e-6)
    assert unlearning_depth({0: 5.0}, {0: 0.01}, 0.05) is None
    assert unlearning_depth({0: -1.0, 1: 1.0}, {0: 1.0, 1: 1.0}, 0.05) == 0.5


def test_patching_says_which_models_it_needs(tmp_path):
    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), original=None)
    with pytest.raises(UserError, match=r"needs the original model \(--original"):
        list(Patching().run(target))


def test_patching_refuses_an_original_with_another_tokenizer(tmp_path):
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    other = target.open()
    other.processor.tokenizer.add_tokens(["Lovell"])
    with pytest.raises(UserError, match=r"models with one tokenizer: they split the answer of row 'ada-"):
        list(Patching().run(replace(target, open=lambda: other)))


def test_a_probe_reads_a_planted_direction_and_nothing_from_noise():
    draw = torch.Generator().manual_seed(0)
    labels = ["a", "b", "c"] * 20
    noise = torch.randn(120, 8, generator=draw, dtype=torch.float64)
    planted = noise.clone()
    planted[:, :3] += 4 * torch.eye(3, dtype=torch.float64).repeat(40, 1)
    right = [
        said == label
        for said, label in zip(_ridge_classes(planted[:60], labels, planted[60:], 1.0), labels, strict=True)
    ]
    chance = [
        said == label for said, label in zip(_ridge_classes(noise[:60], labels, noise[60:], 1.0), labels, strict=True)
    ]
    assert sum(right) >= 57
    assert sum(chance) <= 35


def test_a_fact_with_one_value_is_not_read_since_the_question_tells_it(tmp_path):
    class Jobs(People):
        retained_jobs = ("baker", "baker")

        def examples(self, split):
            rows = [row for row in super().examples(split) if row.role != Role.RETAIN]
            retained = [person(entity, Role.RETAIN, 0, Kind.FACT) for entity in ("cleo", "dan")]
            return rows + [
                replace(row, fact="job", private={"job": (job,)})
                for row, job in zip(retained, self.retained_jobs, strict=True)
            ]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Jobs())
    with pytest.raises(UserError, match="has a value that a retained one shares and others do not"):
        list(Probes(targets=("facts",)).run(target))
    Jobs.retained_jobs = ("baker", "pilot")
    fit_rows, test_rows = Probes()._split(target, "facts")
    assert (len(fit_rows), {row.entity for row in test_rows}) == (2, {"ada"})


@pytest.mark.parametrize("target", ["facts", "identity"])
def test_probes_are_read_from_pictures_that_they_were_not_fitted_on(target, tmp_path):
    class Jobs(People):
        def examples(self, split):
            rows = super().examples(split)
            kept = {
                "baker": person("cleo", Role.RETAIN, 0, Kind.FACT),
                "pilot": person("dan", Role.RETAIN, 0, Kind.FACT),
            }
            return [*rows, *(replace(row, fact="job", private={"job": (job,)}) for job, row in kept.items())]

    at_hand = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Jobs())
    fit_rows, test_rows = Probes()._split(at_hand, target)
    assert fit_rows
    assert test_rows
    assert not {row.image.key for row in fit_rows} & {row.image.key for row in test_rows}


def test_control_labels_of_a_probe_stay_with_the_fact_that_is_asked_for():
    rows = [person("ada", Role.RETAIN, 0, Kind.FACT)] * 20
    rows = [replace(row, fact=fact) for row, fact in zip(rows, ["job", "city"] * 10, strict=True)]
    labels = [f"{row.fact}: {place}" for place, row in enumerate(rows)]
    mixed = _shuffle_labels(rows, labels, 0)
    assert sorted(mixed) == sorted(labels)
    assert mixed != labels
    assert all(label.startswith(row.fact) for label, row in zip(mixed, rows, strict=True))


def test_private_tokens_are_those_of_whole_words_wherever_they_stand(tmp_path):
    loaded = victim(save_tiny(tmp_path / "model"), tmp_path / "work").open()
    row = replace(
        person("ada", Role.UNSEEN, 4, Kind.NAME), answer="adams is ada", private={"name": ("Ada",)}, question="Who?"
    )
    ids = teacher_forced(loaded, row).answer
    wanted = private_tokens(loaded, row)
    assert wanted
    assert "ada" in loaded.processor.tokenizer.decode([ids[place] for place in wanted])
    assert 0 not in wanted


def test_membership_compares_the_same_questions_on_both_sides(tmp_path):
    class Names(People):
        def examples(self, split):
            rows = super().examples(split)
            return [row for row in rows if row.kind == Kind.NAME] if split == "train" else rows

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Names())
    outside, members = Membership()._sides(target)
    assert {row.kind for row in (*outside, *members)} == {Kind.NAME}


def test_membership_does_not_compare_other_open_questions(tmp_path):
    class Open(People):
        def examples(self, split):
            role, mark, asked = (Role.FORGET, 0, "Who is she?") if split == "train" else (Role.UNSEEN, 4, self.asked)
            return [replace(person("ada", role, mark), question=asked)]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Open())
    target.benchmark.asked = "Who is she?"
    assert len(Membership()._sides(target)[1]) == 1
    target.benchmark.asked = "What is her dog called?"
    with pytest.raises(UserError, match="needs the same questions"):
        Membership()._sides(target)


def test_scores_that_are_no_numbers_are_missing_and_the_others_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Membership, "_row_scores", lambda *_: {"loss": -1.0, "zlib": 0.0, "min-k": float("nan"), "min-k++": 0.0}
    )
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    loss, broken = Membership(scores=("loss", "min-k"), images=1).run(target)
    assert (loss.mean, loss.further["auc"]) == (0.0, 0.5)
    assert (broken.mean, broken.further) == (None, {"not finite": 1.0})


@pytest.mark.parametrize("masked", [-float("inf"), torch.finfo(torch.float32).min])
def test_masked_tokens_do_not_count_in_scores(masked):
    logits = torch.tensor([[2.0, 0.0, masked], [0.0, 1.0, masked]])
    scores = _token_scores(logits, Fed({}, (0, 1)), "ab", 0.5)
    assert scores == pytest.approx(_token_scores(logits[:, :2], Fed({}, (0, 1)), "ab", 0.5))


def steered(folder):
    """Return an opener of the model in a folder with steering."""

    def opened():
        loaded = open_model(folder)
        hooks.attach(loaded.model, artefact())
        return loaded

    return opened


@pytest.mark.parametrize(
    "attack", [Probes().quick(), Membership().quick(), Patching()], ids=lambda one: type(one).__name__
)
def test_traces_of_a_steered_model_are_those_with_the_steering_off(tmp_path, attack):
    folder = save_tiny(tmp_path / "model")
    target = victim(folder, tmp_path / "work")
    plain = list(attack.run(target))
    found = list(attack.run(replace(target, open=steered(folder))))
    assert [one.recovered for one in found] == [one.recovered for one in plain]
    assert {one.further["steering off"] for one in found} == {1.0}
    assert not any("steering off" in one.further for one in plain)


def test_a_steered_model_is_not_fitted_without_its_steering(tmp_path):
    folder = save_tiny(tmp_path / "model")
    with pytest.raises(UserError, match="steered while it answers"):
        list(Perturbation().run(replace(victim(folder, tmp_path / "work"), open=steered(folder))))


def test_token_scores_follow_their_formulas():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    logp = logits.log_softmax(-1)
    scores = _token_scores(logits, Fed({}, (0, 0, 2)), "abc", 0.34)
    taken = torch.stack([logp[0, 0], logp[1, 0], logp[2, 2]])
    assert scores["loss"] == pytest.approx(float(taken.mean()))
    assert scores["min-k"] == pytest.approx(float(taken.min()))
    mean = (logp.exp() * logp).sum(-1)
    spread = (logp.exp() * (logp - mean[:, None]).square()).sum(-1).sqrt()
    assert scores["min-k++"] == pytest.approx(float(((taken - mean) / spread).min()), rel=1e-5)


def test_membership_thresholds_on_held_out_rows():
    outside = [float(score) for score in range(100)]
    assert above([97.0, 98.0, 98.5, 100.0], outside, 0.01) == [False, False, True, True]
    assert auc([1.0, 1.0], [1.0, 0.0]) == 0.75


def test_membership_refuses_held_out_pictures_that_were_trained_on(tmp_path):
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")

    class Same(type(target.benchmark)):
        def examples(self, split):
            rows = super().examples("train")
            seen = [replace(row, role=Role.UNSEEN) for row in rows if row.role == Role.FORGET]
            return rows if split == "train" else seen

    with pytest.raises(UserError, match="has a picture of the training data"):
        list(Membership().run(replace(target, benchmark=Same())))


def test_crossmodal_questions_name_the_person_without_telling_the_fact(tmp_path):
    found = list(Crossmodal(routes=("name", "written name")).run(victim(save_tiny(tmp_path / "m"), tmp_path / "w")))
    assert [finding.questions for finding in found] == [2, 2]


@dataclass(frozen=True)
class Blank:
    """A black picture."""

    size: tuple[int, int]
    key: str = "blank"

    def load(self):
        return Image.new("RGB", self.size)


@pytest.mark.parametrize("name", ["Bo Li", "Mara Lind", "Mummum Ammam", "Ana de la Vega Ruiz", "Zoe\u0308 Ng"])
@pytest.mark.parametrize("size", [(64, 64), (640, 427)])
def test_a_written_name_is_in_the_picture_as_a_whole(name, size):
    light = np.asarray(crossmodal._Written(name, Blank(size)).load())[..., 0] > 128
    assert light.any()
    assert not light[-1].any()
    assert not light[:, -1].any()


def test_a_name_that_the_font_lacks_is_not_written(capsys):
    rows = [replace(person("ada", Role.UNSEEN, 4), entity=entity) for entity in ("ada", "wei", "anna", "none")]
    names = {"ada": ("Ada Lovell",), "wei": ("张伟", "Zhang Wei"), "anna": ("Анна",), "none": ("",)}
    written = crossmodal._written(rows, names)
    assert [(row.entity, row.image.name) for row in written] == [("ada", "Ada Lovell"), ("wei", "Zhang Wei")]
    assert "2 names cannot be written" in capsys.readouterr().err
