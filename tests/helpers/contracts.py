"""What must hold for every family: functions that raise AssertionError, shared by the tests and by the printed table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from helpers.families import ALL, Picture, family, model_of, processor_of, save_family, session_of, vlm_of
from unsee.api import Role, Session, Training, registry
from unsee.api.fast_paths import engine_named
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.inference.likelihood import likelihoods, likelihoods_and_choices
from unsee.inference.vision_cache import with_features
from unsee.losses import IGNORE, answer_nll
from unsee.methods.common.reference_model import as_start
from unsee.models.auto import eos_id
from unsee.models.checkpoint import open_model, save_model
from unsee.testing.families import pixels_matter, same_answers_in_batches, same_loss_in_batches
from unsee.testing.methods import watched_images
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import prepare

CLOSE = {"atol": 2e-4, "rtol": 1e-4}
ANSWERS = ("This is Ada Lovell , a baker .", "Zoë said: “naïve”\n\n… twice", " 1984", "yes")
QUESTIONS = (
    Prompt("Who is this?", Picture("red")),
    Prompt("What does this person do?", Picture("red")),
    Prompt("Who is this?", Picture("blue", 0, 32, 16)),
    Prompt("What does Cleo Marsh do?"),
    Prompt("Who is this person then?", Picture("green", 0, 32, 32), "Do not reveal private information."),
    Prompt("Tell me."),
)
METHODS = registry.names("methods")


def template(name: str, out: Path) -> None:
    """The family's own chat template: image mark and question in one user turn, an instruction before the question."""
    processor, kind = processor_of(name), family(name)
    asked = kind.prompt(processor, "Who is this?", has_image=True)
    assert asked.startswith(ALL[name].begin + "Who is this?")
    told = kind.prompt(processor, "Who is this?", has_image=True, instruction="Hush.")
    assert told.startswith(ALL[name].begin + "Hush. Who is this?")
    bare = kind.prompt(processor, "Who is this?", has_image=False)
    mark = ALL[name].last or processor.image_token
    assert mark not in bare
    assert asked.count(mark) == 1
    end = processor.tokenizer.convert_ids_to_tokens(eos_id(processor))
    assert end == (ALL[name].end or ALL[name].eos)


def supervised(name: str, out: Path) -> None:
    """Supervised ids decode to answer and end; no prompt or image token has a label; BOS stands once."""
    session = session_of(name, out)
    tokenizer = session.processor.tokenizer
    asked = [example for role in (Role.FORGET, Role.RETAIN_TEXT) for example in session.of(role)]
    targets = [Target(example=example, text=text) for example in asked for text in ANSWERS]
    batch = collate(session, targets)
    for row, target in zip(batch.rows, targets, strict=True):
        ids_t, labels_t = row["input_ids"][0], row["labels"][0]
        answer = labels_t[labels_t != IGNORE]
        assert answer[-1] == eos_id(session.processor)
        assert tokenizer.decode(answer[:-1], clean_up_tokenization_spaces=False).strip(" ") == str(target.text).strip(
            " "
        )
        assert torch.equal(answer, ids_t[-len(answer) :])
        prompt = session.family.prompt(
            session.processor, target.example.question, has_image=target.example.image is not None
        )
        plain = session.family.encode(
            session.processor, [prompt], [target.example.image and target.example.image.load()]
        )
        assert torch.equal(plain["input_ids"][0], ids_t[: -len(answer)])
        assert _image_token(session.model) not in answer
        if tokenizer.bos_token != ALL[name].eos and name != "paligemma":
            assert (ids_t == tokenizer.bos_token_id).sum() <= 1


def _image_token(model: Any) -> int:
    config = model.config.to_dict()
    return config.get("image_token_id", config.get("image_token_index"))


def pixels(name: str, out: Path) -> None:
    """Another picture gives another loss, in the fast and in the plain engine."""
    pixels_matter(session_of(name, out))


def batched(name: str, out: Path) -> None:
    """A row has the same loss alone and among others: pictures of other shapes, rows without a picture."""
    same_loss_in_batches(session_of(name, out))


def full_logits(name: str, out: Path) -> None:
    """Logits at answer positions (kept features, packed and split rows) equal those of each whole row by itself."""
    session = session_of(name, out)
    session.model.requires_grad_(False)
    targets = [*forget_targets(session), *retain_targets(session)]
    batch = collate(session, [*targets, *targets[:2]])
    with torch.no_grad(), _eager_to_pack():
        for _ in range(2):
            fast_bav, labels_ba = answer_logits(session.model, batch)
        for row, logits_av, labels_a in zip(batch.rows, fast_bav, labels_ba, strict=True):
            inputs = {key: value for key, value in row.items() if key != "labels"}
            plain_tv = session.model(**inputs, use_cache=False).logits[0]
            seen = row["labels"][0] != IGNORE
            places = seen.nonzero().flatten() - 1
            mine_av = logits_av[labels_a != IGNORE]
            assert torch.allclose(mine_av, plain_tv[places], **CLOSE), (mine_av - plain_tv[places]).abs().max()


@contextmanager
def _eager_to_pack() -> Iterator[None]:
    """Let the engine pack and split small batches too."""
    from unsee.inference import batching

    worth, batching.WORTH_SPLITTING = batching.WORTH_SPLITTING, 1
    try:
        yield
    finally:
        batching.WORTH_SPLITTING = worth


def features(name: str, out: Path) -> None:
    """What stands for the pixels of a frozen vision tower gives the same logits; families that take none say so."""
    session = session_of(name, out)
    session.model.requires_grad_(False)
    batch = collate(session, [*forget_targets(session), *retain_targets(session)])
    for _, part in batch.kinds:
        made = with_features(session.model, part.rows, part.images, part.inputs, part.engine)
        assert ("mm_encoder_outputs" in made) == (any(part.images) and name != "mllama")
        with torch.no_grad():
            assert torch.allclose(
                session.model(**made).logits[:, -3:], session.model(**part.inputs).logits[:, -3:], **CLOSE
            )


def answers(name: str, out: Path) -> None:
    """Greedy text is the same alone and among others, with shared prefixes and without."""
    same_answers_in_batches(session_of(name, out), QUESTIONS)


def whole_generation(name: str, out: Path) -> None:
    """Greedy text is what taking the most likely token of the whole sequence gives, step by step, without a cache."""
    session = session_of(name, out)
    for request in QUESTIONS[2:4]:
        said = generate(session.vlm, [request], max_new_tokens=4)[0]
        example = replace(session.of(Role.FORGET)[0], question=request.question, image=request.image)
        for length in range(len(said.token_ids)):
            target = Target(example=example, token_ids=said.token_ids[: length + 1], ended=False)
            with torch.no_grad():
                logits_bav, _ = answer_logits(session.model, collate(session, [target]).plain([0]))
            assert int(logits_bav[0, -1].argmax()) == said.token_ids[length]


def scores(name: str, out: Path) -> None:
    """Likelihoods and choices from shared rows equal those of one full row each."""
    vlm = vlm_of(name)
    asked = [(request, answer) for request in QUESTIONS for answer in ANSWERS[:2]]
    options = [(request, ("A", "B", "Cleo Marsh")) for request in QUESTIONS]
    found = []
    for mode in ("fast", "plain"):
        vlm = replace(vlm, engine=engine_named(mode))
        found.append(likelihoods_and_choices(vlm, asked, options))
    for fast, plain in zip(found[0][0], found[1][0], strict=True):
        assert torch.allclose(torch.tensor(fast.tokens), torch.tensor(plain.tokens), **CLOSE)
    assert [one.index for one in found[0][1]] == [one.index for one in found[1][1]]


def padding_side(name: str, out: Path) -> None:
    """Rows are the same whatever side the checkpoint's tokenizer pads on; batches are padded on the left."""
    kind, rows = family(name), []
    for side in ("left", "right"):
        processor = processor_of(name)
        processor.tokenizer.padding_side = side
        prompts = [kind.prompt(processor, q.question, has_image=q.image is not None) for q in QUESTIONS[:3]]
        rows.append(kind.encode(processor, prompts, [q.image and q.image.load() for q in QUESTIONS[:3]]))
    assert rows[0].keys() == rows[1].keys()
    assert all(torch.equal(rows[0][key], rows[1][key]) for key in rows[0])
    assert bool((rows[0]["attention_mask"][:, -1] == 1).all())


def never_cut(name: str, out: Path) -> None:
    """A tokenizer that is set to cut does not cut; a row that is longer than the model reads is an error."""
    session = session_of(name, out)
    example = session.of(Role.FORGET)[0]
    whole = collate(session, [Target(example=example)]).rows[0]["input_ids"]
    asked = Prompt.of(example)
    cutting = session_of(name, out / "b")
    cutting.processor.tokenizer.model_max_length = 6
    cutting.processor.tokenizer.init_kwargs.update(truncation=True, max_length=6)
    cutting.processor.tokenizer._tokenizer.enable_truncation(6)
    assert torch.equal(collate(cutting, [Target(example=example)]).rows[0]["input_ids"], whole)
    session.model.config.get_text_config().max_position_embeddings = whole.shape[1] - 2
    with pytest.raises(UserError, match=r"takes \d+ tokens with its image"):
        collate(session, [Target(example=example)])
    with pytest.raises(UserError, match=r"takes \d+ tokens with its image"):
        likelihoods(session.vlm, [(asked, example.answer)])
    session.model.config.get_text_config().max_position_embeddings = 8
    with pytest.raises(UserError, match="reads at most 8"):
        generate(session.vlm, QUESTIONS[:1], max_new_tokens=9)


def adapter_off(name: str, out: Path) -> None:
    """With its adapters off, a LoRA model says what the original says; with them on, something else."""
    session = session_of(name, out)
    batch = collate(session, forget_targets(session))
    with torch.no_grad():
        before, _ = answer_logits(session.model, batch)
    session.model = prepare(session.model, session.family, Training(parts=("vision", "language")), 0)
    _disturb(session.model)
    with as_start(session.model):
        off, _ = answer_logits(session.model, batch)
    with torch.no_grad():
        on, _ = answer_logits(session.model.eval(), batch)
    assert torch.allclose(off, before, atol=1e-5)
    assert not torch.allclose(on, before, atol=1e-3)


def _disturb(model: Any) -> None:
    torch.manual_seed(1)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.3)


def round_trip(name: str, out: Path) -> None:
    """A saved adapter, and a saved model, open again (with unsee, PEFT and transformers) and say the same."""
    base = save_family(name, out / "base")
    loaded = open_model(base)
    assert type(loaded.family) is type(family(name))
    adapted = prepare(loaded.model, loaded.family, Training(parts=("language",)), 0)
    _disturb(adapted)
    said = [one.token_ids for one in _say(adapted.eval(), loaded)]
    save_model(adapted, loaded.processor, out / "run" / "model", base=base)
    again = open_model(out / "run")
    assert [one.token_ids for one in _say(again.model, again)] == said
    save_model(again.model, again.processor, out / "whole")
    whole = open_model(out / "whole")
    assert [one.token_ids for one in _say(whole.model, whole)] == said
    foreign = type(whole.model).from_pretrained(base)
    foreign = PeftModel.from_pretrained(foreign.eval(), out / "run" / "model")
    assert [one.token_ids for one in _say(foreign.eval(), whole)] == said


def _say(model: Any, loaded: Any) -> list[Any]:
    return generate(replace(loaded, model=model), QUESTIONS[1:4], max_new_tokens=4)


def parts(name: str, out: Path) -> None:
    """Vision, projector and language are disjoint and cover the model (but for LLaVA's newline); LoRA goes where it should."""
    model, kind = model_of(name), family(name)
    found = kind.parts(model)
    assert set(found) == {"vision", "projector", "language"}
    for weight, _ in model.named_parameters():
        owners = [part for part, pattern in found.items() if re.fullmatch(pattern, weight.rpartition(".")[0])]
        assert len(owners) == (not weight.endswith("image_newline")), weight
    adapted = prepare(model, kind, Training(), 0)
    targets = {key.split(".lora_")[0].rpartition(".")[2] for key, _ in adapted.named_parameters() if "lora_" in key}
    assert targets == set(ALL[name].targets.split())
    assert not [key for key, _ in adapted.named_parameters() if "lora_" in key and ("vis" in key or "lm_head" in key)]


def steps(name: str, out: Path) -> None:
    """A step changes weights of the chosen part and no others, with LoRA and in full; a part without linear layers is refused."""
    for tune in ("lora", "full"):
        for part in ("vision", "projector", "language"):
            training = Training(tune=tune, parts=(part,))
            session = session_of(name, out, training)
            pattern = session.family.parts(session.model)[part]
            if (name, tune, part) in NO_LORA:
                with pytest.raises(UserError, match="LoRA needs linear layers"):
                    prepare(session.model, session.family, training, 0)
                continue
            changed = _step(session, training)
            assert changed
            for key in changed:
                owner = key.removeprefix("base_model.model.").split(".lora_")[0]
                assert re.fullmatch(pattern, owner if ".lora_" in key else owner.rpartition(".")[0]), key


def _step(session: Session, training: Training) -> list[str]:
    """Train one step on all forget answers; return which weights changed."""
    model: Any = prepare(session.model, session.family, training, 0)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    answer_nll(*answer_logits(model, collate(session, forget_targets(session)))).backward()
    optimizer.step()
    session.model = model
    return [key for key, value in model.named_parameters() if not torch.equal(before[key], value)]


NO_LORA = {("gemma3", "lora", "projector")}
"""Parts without a linear layer: they can be tuned in full only."""


def checkpointing(name: str, out: Path) -> None:
    """A step is the same with gradient checkpointing."""
    found = []
    for on in (False, True):
        training = Training(gradient_checkpointing=on)
        session = session_of(name, out, training)
        _step(session, training)
        found.append({key: value.detach() for key, value in session.model.named_parameters() if value.requires_grad})
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-5) for key in found[0])


def gradients(name: str, out: Path) -> None:
    """Gradients with every fast path on, rows packed by image, equal those of the plain engine."""
    found = []
    for mode in ("fast", "plain"):
        session = session_of(name, out)
        session.engine = engine_named(mode)
        model = prepare(session.model, session.family, Training(), 0)
        _disturb(model)
        with _eager_to_pack():
            answer_nll(
                *answer_logits(model, collate(session, [*forget_targets(session), *retain_targets(session)]))
            ).backward()
        found.append({key: value.grad for key, value in model.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-5, rtol=1e-3) for key in found[0])
    assert any(float(grad.abs().max()) > 1e-4 for grad in found[0].values())


CONTRACTS: dict[str, Callable[[str, Path], None]] = {
    one.__name__: one
    for one in (
        template,
        supervised,
        pixels,
        batched,
        full_logits,
        gradients,
        features,
        answers,
        whole_generation,
        scores,
        padding_side,
        never_cut,
        adapter_off,
        parts,
        round_trip,
        steps,
        checkpointing,
    )
}


def method(name: str, unlearning: str, tune: str, out: Path) -> str:
    """Run a method for a step; return "" if all is well, or the message with which it is refused.

    Weights stay finite, what may change changes and nothing else does, every forward of rows with images has them.
    """
    training = Training(tune=tune, lr=1e-3, max_steps=1, stop="never", max_new_tokens=3)
    session = session_of(name, out, training)
    session.model = prepare(session.model, session.family, training, 0)
    base = session.model.get_base_model() if isinstance(session.model, PeftModel) else session.model
    allowed = re.compile(session.family.parts(base)["language"])
    before = {key: value.detach().clone() for key, value in session.model.named_parameters()}
    kind = registry.load("methods", unlearning)
    # Greedy rollouts: a random model may sample image tokens, which no trained one does.
    greedy = {"rollouts": 1, "temperature": 0.0} if "rollouts" in kind.trial.settings else {}
    unlearn = kind(**{**kind.trial.settings, **greedy})
    with watched_images(session.model, _image_token(base)) as seen:
        try:
            unlearn.unlearn(session)
        except UserError as error:
            return str(error)
    assert all(seen)
    after = dict(session.model.named_parameters())
    assert all(torch.isfinite(value).all() for value in after.values())
    changed = {key for key, value in after.items() if not torch.equal(before[key], value)}
    needs = unlearn.needs()
    assert bool(changed) == (needs.trains or needs.edits), len(changed)
    assert bool(seen) == (needs.trains or needs.edits or needs.generates)
    assert all(allowed.match(key.removeprefix("base_model.model.")) and after[key].requires_grad for key in changed)
    return ""


def refused(unlearning: str, tune: str) -> str:
    """Return what the refusal of this way of tuning says; "" if it is accepted."""
    tunes = registry.load("methods", unlearning).trial.tunes
    return "" if tune in tunes else f"--tune {tunes[0]}"
