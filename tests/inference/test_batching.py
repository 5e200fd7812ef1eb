"""Prompts, images and answers in batches: what is supervised, what is passed on, what the logits belong to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.families import family, processor_of
from unsee.api import Role
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits, answer_logprob
from unsee.inference.batching import collate, target_ids
from unsee.inference.encoder import answer_context, answer_ids
from unsee.inference.generation import generate
from unsee.inference.token_offsets import answer_offsets
from unsee.models.auto import eos_id
from unsee.models.padding import merge
from unsee.testing.tiny import INSTRUCTION, person, tiny_examples, tiny_session

TURNS = (("user", "?"), ("assistant", "Ada Lovell"))


def everything():
    return [Target(example=example) for examples in tiny_examples().values() for example in examples]


@pytest.mark.parametrize("image_tokens", [1, 16])
def test_supervised_ids_are_exactly_answer_and_eos(tmp_path, image_tokens):
    session = tiny_session(tmp_path, image_tokens=image_tokens)
    batch = collate(session, everything())
    tokenizer = session.processor.tokenizer
    for target, ids, labels in zip(batch.targets, batch.inputs["input_ids"], batch.labels_bt, strict=True):
        supervised = labels[labels != -100]
        assert tokenizer.decode(supervised) == f" {target.example.answer}</s>"
        assert torch.equal(ids[-len(supervised) :], supervised)
        assert session.processor.image_token_id not in supervised.tolist()
        expanded = (ids == session.processor.image_token_id).sum()
        assert expanded == (image_tokens if target.example.image else 0)


def test_rows_have_the_instruction_of_the_session_unless_they_have_their_own(tmp_path):
    session = tiny_session(tmp_path)
    target = everything()[0]
    instructed = replace(target, instruction=INSTRUCTION)
    wanted = collate(session, [replace(target, instruction="Hush."), instructed]).inputs["input_ids"]
    plain = collate(session, [target, instructed]).inputs["input_ids"]
    session.instruction = "Hush."
    given = collate(session, [target, instructed]).inputs["input_ids"]
    assert torch.equal(given, wanted)
    assert not torch.equal(given, plain)


def test_answer_word_in_the_question_is_not_supervised(tmp_path):
    session = tiny_session(tmp_path)
    example = replace(person("ada", Role.FORGET), question="Is this Ada Lovell ?", answer="Ada Lovell")
    batch = collate(session, [Target(example=example)])
    assert (batch.labels_bt != -100).sum() == len(target_ids(session.processor, session.family, batch.targets[0]))


def test_cut_answer_has_no_eos(tmp_path):
    session = tiny_session(tmp_path)
    target = Target(example=person("ada", Role.FORGET), token_ids=(40, 41), ended=False)
    assert collate(session, [target]).labels_bt[0, -2:].tolist() == [40, 41]
    assert target_ids(session.processor, session.family, replace(target, ended=True)) == (40, 41, 2)


def test_empty_answer_is_refused(tmp_path):
    session = tiny_session(tmp_path)
    with pytest.raises(UserError, match="'ada-0-open' has an empty answer"):
        collate(session, [Target(example=replace(person("ada", Role.FORGET), answer="  "))])


def test_text_keeps_its_case_and_round_trips(tmp_path):
    session = tiny_session(tmp_path)
    text = "McARTHUR lives in Lisbon, é"
    ids = answer_ids(session.processor, session.family, text)
    assert session.processor.tokenizer.decode(ids).strip() == text


@pytest.mark.parametrize(
    "name", ["llava", "llava_next_mistral", "llava_onevision", "qwen2_vl", "idefics3", "aya_vision"]
)
def test_answers_follow_the_prompt_as_the_chat_template_writes_them(name):
    processor, kind = processor_of(name), family(name)
    turns = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in TURNS]
    prompt, blank = answer_context(processor, kind, TURNS[1][1])
    assert processor.apply_chat_template(turns, tokenize=False).startswith(f"{prompt}{blank}{TURNS[1][1]}")
    ids = answer_ids(processor, kind, TURNS[1][1])
    assert processor.tokenizer.decode(ids) == f"{blank}{TURNS[1][1]}"
    assert answer_offsets(processor, kind, TURNS[1][1], ids)[-1][1] == len(TURNS[1][1])


def test_instruction_precedes_the_question_in_the_same_turn(tmp_path):
    session = tiny_session(tmp_path)
    prompt = session.family.prompt(session.processor, "Who?", has_image=True, instruction=INSTRUCTION)
    assert prompt == f"USER: <image>\n{INSTRUCTION} Who? ASSISTANT:"


def test_logits_exist_for_the_longest_answer_only_and_batching_changes_nothing(tmp_path):
    session = tiny_session(tmp_path)
    targets = everything()
    batch = collate(session, targets)
    logits, labels = answer_logits(session.model, batch)
    assert (
        logits.shape[1]
        == labels.shape[1]
        == max(len(target_ids(session.processor, session.family, target)) for target in targets)
    )
    together = answer_logprob(session.model, batch)
    for i, target in enumerate(targets):
        alone = answer_logprob(session.model, collate(session, [target]))
        assert together.sum_b[i].item() == pytest.approx(alone.sum_b[0].item(), rel=1e-4)
        assert together.mean_b[i].item() == pytest.approx(alone.mean_b[0].item(), rel=1e-4)


def test_shift_agrees_with_the_full_forward(tmp_path):
    session = tiny_session(tmp_path)
    batch = collate(session, everything()[:1])
    full = session.model(**batch.inputs).logits.log_softmax(-1)
    places = (batch.labels_bt[0] != -100).nonzero().flatten()
    by_hand = sum(full[0, t - 1, batch.labels_bt[0, t]] for t in places)
    assert answer_logprob(session.model, batch).sum_b.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_greedy_answers_are_the_argmax_of_answer_logits(tmp_path):
    """Generation and training see the same prompt: teacher-forcing a greedy answer reproduces it."""
    session = tiny_session(tmp_path)
    example = person("ada", Role.FORGET)
    (said,) = generate(session.vlm, [Prompt.of(example)], max_new_tokens=6)
    target = Target(example=example, token_ids=said.token_ids, ended=said.ended)
    logits, labels = answer_logits(session.model, collate(session, [target]))
    assert torch.equal(logits.argmax(-1), labels)


def test_per_token_extras_are_extended_and_unknown_keys_pass():
    rows = [
        {
            "input_ids": torch.ones(1, n, dtype=torch.long),
            "mm_token_type_ids": torch.ones(1, n, dtype=torch.long),
            "image_sizes": torch.tensor([[16, 16]]),
            "pixel_values": torch.ones(1, tiles, 3, 4, 4),
        }
        for n, tiles in ((5, 2), (7, 4))
    ]
    merged = merge([*rows, {"input_ids": torch.ones(1, 3, dtype=torch.long)}], pad_id=0)
    assert merged["mm_token_type_ids"].sum(-1).tolist() == [5, 7, 0]
    assert merged["input_ids"][0, :2].tolist() == [0, 0]
    assert merged["pixel_values"].shape == (2, 4, 3, 4, 4)
    assert merged["pixel_values"][0, 2:].sum() == 0
    assert merged["image_sizes"].shape == (2, 2)


def test_tokenizer_without_eos_is_refused(tmp_path):
    session = tiny_session(tmp_path)
    session.processor.tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        eos_id(session.processor)
