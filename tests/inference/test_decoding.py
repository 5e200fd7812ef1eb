"""Shared prefixes, lanes and compaction change nothing but the time: answers are those of one full prompt a row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unsee.api.fast_paths import PLAIN
from unsee.api.request import Prompt, Sampling
from unsee.data.open import open_benchmark
from unsee.inference import decoding, prefix_cache
from unsee.inference.encoder import encoder
from unsee.inference.generation import generate
from unsee.inference.prefix_groups import groups
from unsee.models.checkpoint import load
from unsee.models.families.llava import Llava
from unsee.testing.tiny import INSTRUCTION, QUESTION, Drawn, tiny_vlm

QUESTIONS = (
    "Who is this?",
    QUESTION,
    "What does this person do? Tell me about the hair and the shirt of this person.",
    "Tell me.",
    "Is Bo Winter a diver from Oslo?",
)


SLOW = pytest.mark.slow


@pytest.fixture(params=[1, 16])
def vlm(request):
    return tiny_vlm(request.param)


def mixed() -> list[Prompt]:
    """Questions about four images and none, under two instructions, in no order."""
    images = (Drawn("red"), None, Drawn("blue"), Drawn("green", 4), Drawn("red", 2))
    asked = [Prompt(question, image) for image in images for question in QUESTIONS[: 2 + len(str(image)) % 4]]
    asked += [Prompt(question, Drawn("blue"), INSTRUCTION) for question in QUESTIONS]
    return asked[::2] + asked[1::2]


def both(vlm, asked, **settings):
    plain = generate(replace(vlm, engine=PLAIN), asked, **settings)
    return generate(vlm, asked, **settings), plain


@pytest.fixture
def wide(monkeypatch):
    """Make lanes worth while for short prefixes."""
    monkeypatch.setattr(decoding, "LIKELY", 1)


@pytest.mark.parametrize(
    ("batch_size", "stop"),
    [
        (1, False),
        (3, True),
        (64, False),
        (64, True),
        *(pytest.param(*case, marks=SLOW) for case in ((1, True), (3, False))),
    ],
)
def test_equal_to_the_plain_path(vlm, batch_size, stop):
    if stop:  # a token that is often said: rows end at different times
        first = generate(vlm, mixed(), max_new_tokens=8)
        vlm.model.generation_config.eos_token_id = [2, first[0].token_ids[3], first[1].token_ids[5]]
    fast, plain = both(vlm, mixed(), max_new_tokens=12, batch_size=batch_size)
    assert fast == plain
    assert len({answer.token_ids for answer in fast}) > 3
    assert {answer.ended for answer in fast} >= ({True} if stop else set())


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("batch_size", "stop"),
    [(2, True), (64, False), *(pytest.param(*case, marks=SLOW) for case in ((2, False), (64, True)))],
)
def test_lanes_change_nothing(monkeypatch, batch_size, stop):
    vlm = tiny_vlm()
    lanes = []
    true = decoding._Wave.run
    monkeypatch.setattr(decoding._Wave, "run", lambda wave, *a: lanes.append(wave.lanes) or true(wave, *a))
    monkeypatch.setattr(decoding, "_cells", several)
    if stop:
        first = generate(vlm, mixed(), max_new_tokens=8)
        vlm.model.generation_config.eos_token_id = [2, first[0].token_ids[3], first[1].token_ids[5]]
    lanes.clear()
    fast, plain = both(vlm, mixed(), max_new_tokens=16, batch_size=batch_size)
    assert max(lanes) == min(batch_size, 3)
    assert fast == plain


def test_lanes_are_as_wide_as_their_own_questions(monkeypatch, calls_of):
    vlm = tiny_vlm()
    monkeypatch.setattr(decoding, "_cells", several)
    asked = [Prompt(question, Drawn("red")) for question in QUESTIONS[:3]]
    (group,) = groups(vlm.processor, vlm.family, asked, 3)
    shapes = calls_of(vlm.model)
    generate(vlm, asked, max_new_tokens=1)
    lengths = [len(ids) - group.shared for ids in group.ids]
    assert len(set(lengths)) > 1
    assert shapes == [(1, group.shared), (1, sum(lengths))]


@pytest.fixture
def calls_of(monkeypatch):
    """Note the shapes of a model's inputs."""

    def noted(model):
        shapes, true = [], model.forward
        monkeypatch.setattr(model, "forward", lambda **kw: shapes.append(tuple(kw["input_ids"].shape)) or true(**kw))
        return shapes

    return noted


def test_the_pool_is_given_away_with_the_last_wave(monkeypatch, vlm):
    held, true = [], decoding._Wave.__init__

    def begun(wave, model, pool, *rest, **more):
        held.append((len(pool.layers), true(wave, model, pool, *rest, **more), len(pool.layers)))

    monkeypatch.setattr(decoding._Wave, "__init__", begun)
    asked = [Prompt(question, Drawn("red")) for question in QUESTIONS]
    generate(vlm, asked, max_new_tokens=3, batch_size=2)
    layers = vlm.model.config.text_config.num_hidden_layers
    assert len(held) > 1
    assert [after for _, _, after in held] == [layers] * (len(held) - 1) + [0]


def several(place, group, _, batch_size):
    """Put up to three questions in a row, whatever it costs."""
    width = min(3, batch_size)
    for start in range(0, len(group.ids), width):
        ids = group.ids[start : start + width]
        yield decoding._Cell(place, group.places[start : start + width], tuple(one[group.shared :] for one in ids))


def test_sampling_draws_the_same(vlm):
    for sampling in (Sampling(), Sampling(temperature=0.7, top_p=0.8)):
        fast, plain = both(vlm, mixed(), max_new_tokens=6, sampling=sampling, seed=3)
        assert fast == plain == generate(vlm, mixed(), max_new_tokens=6, sampling=sampling, seed=3, batch_size=2)


def test_an_image_is_prefilled_once_for_all_its_questions(monkeypatch):
    vlm = tiny_vlm()
    model, processor = vlm.model, vlm.processor
    images, tokens = [], []
    vision, forward = model.model.get_image_features, model.forward

    def seen(**inputs):
        images.append(len(inputs["pixel_values"]))
        return vision(**inputs)

    def run(**inputs):
        tokens.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(model.model, "get_image_features", seen)
    monkeypatch.setattr(model, "forward", run)
    asked = [Prompt(question, Drawn(color)) for color in ("red", "blue") for question in QUESTIONS]
    generate(vlm, asked, max_new_tokens=1)
    assert sum(images) == 2
    assert len(tokens) == 2  # one for the prefixes of both images, one for what is left of all questions
    longest = max(len(ids) for group in groups(processor, Llava(), asked, 3) for ids in group.ids)
    assert sum(tokens) < 0.8 * longest * len(asked)


def test_an_image_is_loaded_once_for_all_its_questions(monkeypatch, vlm):
    loads = []
    true = Drawn.load
    monkeypatch.setattr(Drawn, "load", lambda image: loads.append(image) or true(image))
    asked = [Prompt(question, Drawn("red")) for question in QUESTIONS]
    generate(vlm, asked, max_new_tokens=1)
    generate(vlm, [Prompt(question, Drawn("blue")) for question in QUESTIONS], max_new_tokens=1)
    assert len(loads) <= 3  # one for each image, one to compare the spliced prompt with the processor's


def test_spliced_prompts_are_the_processors(vlm):
    processor, family = vlm.processor, vlm.family
    token = processor.tokenizer.convert_tokens_to_ids("<image>")
    for group in groups(processor, family, mixed(), token):
        for place, ids in zip(group.places, group.ids, strict=True):
            asked = mixed()[place]
            row = encoder(processor, family).row(asked)
            assert ids == tuple(row["input_ids"][0].tolist())
        assert group.sharable(token)
        assert all(ids[: group.shared] == group.ids[0][: group.shared] for ids in group.ids)
        assert group.shared < min(map(len, group.ids))


@pytest.mark.parametrize("setting", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}])
def test_a_checkpoint_with_its_own_decoding_settings_takes_the_plain_path(vlm, monkeypatch, setting):
    monkeypatch.setattr(decoding._Wave, "run", lambda *_: pytest.fail("shared"))
    for name, value in setting.items():
        setattr(vlm.model.generation_config, name, value)
    fast, plain = both(vlm, mixed(), max_new_tokens=8)
    assert fast == plain


def test_the_pool_and_the_prefill_may_be_small(vlm, monkeypatch):
    wanted = generate(vlm, mixed(), max_new_tokens=5)
    monkeypatch.setattr(prefix_cache, "POOL_BYTES", 1)
    monkeypatch.setattr(prefix_cache, "CPU_TOKENS", 1)
    assert generate(vlm, mixed(), max_new_tokens=5) == wanted


@pytest.mark.slow
def test_the_lab_model_says_the_same():
    lab = load("lab")
    examples = open_benchmark("lab").examples("eval")
    asked = [Prompt.of(example, lab.instruction) for example in examples[::15]]
    fast, plain = both(lab, asked, max_new_tokens=80)
    assert fast == plain
