"""Batched generation says what single generation says, and sampling depends on the seed alone."""

from __future__ import annotations

import gc
import weakref

import pytest

from unsee.api.request import Prompt, Sampling
from unsee.errors import UserError
from unsee.inference.encoder import encoder
from unsee.inference.generation import generate
from unsee.models.checkpoint import load
from unsee.testing.tiny import Drawn, save_tiny, tiny_examples, tiny_session


@pytest.fixture
def ask(tmp_path):
    session = tiny_session(tmp_path)
    examples = [example for group in tiny_examples().values() for example in group]
    requests = [Prompt.of(example) for example in examples]

    def answers(chosen=requests, **settings):
        return generate(session.vlm, chosen, max_new_tokens=6, **settings)

    answers.session = session
    return answers


def test_order_and_batching_do_not_matter(ask):
    assert ask() == ask(batch_size=1) == ask(batch_size=3)


def test_the_image_matters(ask):
    question = "Tell me the information of this person."
    colors = ("red", "blue", "black", "white", "green", "yellow", "pink", "cyan")
    assert len(set(ask([Prompt(question, Drawn(color)) for color in colors]))) > 1


def test_sampling_depends_on_seed_only(ask):
    first = ask(sampling=Sampling(), seed=1)
    assert first == ask(sampling=Sampling(), seed=1, batch_size=2)
    assert first != ask(sampling=Sampling(), seed=2)
    assert first != ask()


def test_cold_sampling_is_greedy(ask):
    assert ask(sampling=Sampling(temperature=1e-4)) == ask() == ask(sampling=Sampling(top_p=1e-6))


def test_sampling_follows_the_distribution(ask):
    """First tokens of many draws: frequencies agree with probabilities."""
    session = ask.session
    request = Prompt("Who is this?", Drawn("red"))
    said = generate(
        session.vlm,
        [request] * 600,
        max_new_tokens=1,
        sampling=Sampling(temperature=0.5),
    )
    from unsee.inference.encoder import encoder

    row = encoder(session.processor, session.family).row(request)
    probabilities = (session.model(**row).logits[0, -1] / 0.5).softmax(-1)
    top = int(probabilities.argmax())
    share = sum(answer.token_ids[:1] == (top,) for answer in said) / 600
    assert share == pytest.approx(probabilities[top].item(), abs=0.07)


def test_end_is_recognised(ask):
    session = ask.session
    session.model.lm_head.weight.data[2] = 0
    first = ask(ask.__defaults__[0][:1])[0]
    assert not first.ended
    assert len(first.token_ids) == 6
    session.model.generation_config.eos_token_id = [2, first.token_ids[0]]
    assert ask(ask.__defaults__[0][:1])[0].ended
    assert ask(ask.__defaults__[0][:1])[0].token_ids == ()


def test_model_returns_to_its_mode(ask):
    ask.session.model.train()
    ask()
    assert ask.session.model.training


def test_impossible_sampling_is_refused():
    with pytest.raises(UserError, match="temperature > 0"):
        Sampling(temperature=0)


def test_encoded_prompts_go_with_their_processor(tmp_path):
    loaded = load(save_tiny(tmp_path / "tiny"))
    encoder(loaded.processor, loaded.family).answer("a baker")
    gone = weakref.ref(loaded.processor)
    del loaded
    gc.collect()
    assert gone() is None
