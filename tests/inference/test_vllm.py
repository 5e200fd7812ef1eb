"""vLLM behind the same function: our side against a stand-in that records its calls; parity where vLLM is installed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from unsee.api import Benchmark, Vocabulary
from unsee.api.request import Prompt, Sampling
from unsee.errors import UserError
from unsee.evaluation.evaluate import evaluate
from unsee.inference import vllm as backend
from unsee.inference.generation import generate
from unsee.models.checkpoint import open_model, save_model
from unsee.models.families.llava import Llava
from unsee.testing.tiny import Drawn, save_tiny, tiny_examples, tiny_model, tiny_processor


class Fake:
    """Stands in for the module `vllm`; says the token ids 5, 6, 7 and, for every second prompt, EOS."""

    def __init__(self):
        self.started, self.prompts, self.settings, self.seen = [], [], [], []

    def LLM(self, **settings):  # noqa: N802
        self.started.append(settings)
        self.seen.append(sorted(file.name for file in backend.Path(settings["model"]).iterdir()))
        return self

    def SamplingParams(self, **settings):  # noqa: N802
        return SimpleNamespace(**settings)

    def generate(self, prompts, settings, use_tqdm):
        self.prompts += prompts
        self.settings += settings
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=[5, 6, 7, *[2] * (n % 2)], finish_reason="length")])
            for n in range(len(prompts))
        ]


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setitem(sys.modules, "vllm", made)
    backend._ENGINE.clear()
    yield made
    backend._ENGINE.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


class Small(Benchmark):
    name = "small"

    def examples(self, split):
        return [example for examples in tiny_examples().values() for example in examples]

    def vocabulary(self):
        return Vocabulary()


ASKED = [Prompt("Who is this?", Drawn("red")), Prompt("What does Cleo Marsh do?", None, "Be brief.")]


def test_what_vllm_is_told(fake, folder):
    processor = tiny_processor()
    said = backend.generate(folder, processor, Llava(), ASKED, max_new_tokens=9)
    assert fake.started == [{"model": str(folder), "enable_prefix_caching": True, "limit_mm_per_prompt": {"image": 1}}]
    with_image, without = fake.prompts
    text = processor.tokenizer.decode(with_image["prompt_token_ids"])
    assert text == "<s>" * text.startswith("<s>") + "USER: <image>\nWho is this? ASSISTANT:"
    assert with_image["multi_modal_data"]["image"].size == (16, 16)
    assert "multi_modal_data" not in without
    assert "Be brief. What does" in processor.tokenizer.decode(without["prompt_token_ids"])
    assert {(one.temperature, one.max_tokens, tuple(one.stop_token_ids)) for one in fake.settings} == {(0.0, 9, (2,))}
    assert [one.token_ids for one in said] == [(5, 6, 7), (5, 6, 7)]
    assert [one.ended for one in said] == [False, True]
    assert said[0].text == processor.tokenizer.decode([5, 6, 7]).strip()


def test_the_engine_starts_once_for_a_folder(fake, folder):
    for _ in range(2):
        backend.generate(folder, tiny_processor(), Llava(), ASKED, max_new_tokens=9)
    assert len(fake.started) == 1


def test_sampling_has_a_seed_for_each_request(fake, folder):
    settings = {"max_new_tokens": 3, "sampling": Sampling(temperature=0.5, top_p=0.9)}
    backend.generate(folder, tiny_processor(), Llava(), ASKED, seed=1, **settings)
    assert {(one.temperature, one.top_p) for one in fake.settings} == {(0.5, 0.9)}
    assert len({one.seed for one in fake.settings}) == 2


def test_an_adapter_is_merged_into_a_temporary_folder(fake, folder, tmp_path):
    adapted = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"], r=2))
    save_model(adapted, tiny_processor(), tmp_path / "run/model", instruction="Be brief.", base=folder)
    served = backend.VLLMBackend(tmp_path / "run")
    assert served.instruction == "Be brief."
    assert isinstance(served.family, Llava)
    assert served.weights != backend.VLLMBackend(folder).weights
    backend.generate(served.path, served.processor, served.family, ASKED, max_new_tokens=1)
    place = backend.Path(fake.started[0]["model"])
    assert not place.exists()
    assert "config.json" in fake.seen[0]
    assert "adapter_config.json" not in fake.seen[0]


def test_an_engine_is_gone_before_another_starts(fake, folder, tmp_path, monkeypatch):
    class Engine:
        generate = fake.generate

    started, gone = [], []

    def start(**_):
        gone.extend(known() is None for known in started)
        engine = Engine()
        started.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(fake, "LLM", start)
    for place in (folder, save_tiny(tmp_path / "other")):
        backend.generate(place, tiny_processor(), Llava(), ASKED, max_new_tokens=1)
    assert gone == [True]


def test_all_adapters_of_a_chain_count(folder, tmp_path):
    for name, base in (("first", folder), ("second", tmp_path / "first")):
        adapted = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"], r=2))
        save_model(adapted, tiny_processor(), tmp_path / name, base=base)
    before = backend.VLLMBackend(tmp_path / "second").weights, backend._modification_time(tmp_path / "second")
    (tmp_path / "first/adapter_model.safetensors").write_bytes(b"other")
    os.utime(tmp_path / "first/adapter_model.safetensors", (2e9, 2e9))
    after = backend.VLLMBackend(tmp_path / "second").weights, backend._modification_time(tmp_path / "second")
    assert before[0] != after[0]
    assert before[1] < after[1]


def test_a_model_card_is_no_weight(folder, tmp_path):
    place = save_tiny(tmp_path / "model")
    before = backend.VLLMBackend(place).weights, backend._modification_time(place)
    (place / "README.md").write_text("scores")
    os.utime(place / "README.md", (2e9, 2e9))
    assert (backend.VLLMBackend(place).weights, backend._modification_time(place)) == before


@pytest.mark.parametrize("own_processor", [True, False])
def test_adapters_without_sidecar_and_processor_have_those_of_the_next_base_that_has_them(
    own_processor, folder, tmp_path
):
    processor = tiny_processor()
    if own_processor:
        processor.chat_template = processor.chat_template.replace("USER: ", "HUMAN: ")
    for name, base in (("first", folder), ("second", tmp_path / "first")):
        adapted = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"], r=2))
        save_model(adapted, processor, tmp_path / name, instruction="Be brief.", base=base)
    for file in ("unsee.json", "processor_config.json", "chat_template.jinja"):
        (tmp_path / "second" / file).unlink()
        if not own_processor and file != "unsee.json":
            (tmp_path / "first" / file).unlink()
    opened, served = open_model(tmp_path / "second"), backend.VLLMBackend(tmp_path / "second")
    assert served.instruction == opened.instruction == "Be brief."
    texts = [one.family.prompt(one.processor, "Who?", has_image=False) for one in (opened, served)]
    assert texts[0] == texts[1]
    assert ("HUMAN" in texts[1]) is own_processor


def test_an_adapter_on_itself_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match="stands on itself"):
        backend.VLLMBackend(tmp_path).family  # noqa: B018 - a property


def configured(folder, tmp_path, **settings):
    place = shutil.copytree(folder, tmp_path / "configured")
    (place / "generation_config.json").write_text(json.dumps(settings))
    return place


def test_generation_settings_are_passed_on(fake, folder, tmp_path):
    place = configured(folder, tmp_path, eos_token_id=[2, 7], repetition_penalty=1.3)
    (said, *_) = backend.generate(place, tiny_processor(), Llava(), ASKED, max_new_tokens=9)
    assert {(one.repetition_penalty, tuple(one.stop_token_ids)) for one in fake.settings} == {(1.3, (2, 7))}
    assert (said.token_ids, said.ended) == ((5, 6), True)


def test_without_generation_settings_the_model_config_counts(folder, tmp_path):
    place = configured(folder, tmp_path)
    (place / "generation_config.json").unlink()
    assert backend._decoding(place).repetition_penalty in (None, 1.0)


def test_generation_settings_that_vllm_would_ignore_are_refused(fake, folder, tmp_path):
    place = configured(folder, tmp_path, no_repeat_ngram_size=3)
    with pytest.raises(UserError, match="generates with no_repeat_ngram_size"):
        backend.generate(place, tiny_processor(), Llava(), ASKED, max_new_tokens=9)
    assert not fake.started


def test_damaged_generation_settings_are_said(fake, folder, tmp_path):
    place = configured(folder, tmp_path)
    (place / "generation_config.json").write_text('{"eos_token_id": ')
    for call in (
        lambda: backend.generate(place, tiny_processor(), Llava(), ASKED, max_new_tokens=9),
        lambda: open_model(place),
    ):
        with pytest.raises(UserError, match=r"generation_config.json is no valid JSON"):
            call()
    assert not fake.started


def test_evaluate_answers_through_vllm(fake, folder, tmp_path):
    scores = evaluate(str(folder), Small(), tmp_path / "x", max_new_tokens=4, progress=False, backend="vllm")
    rows = [json.loads(line) for line in (tmp_path / "x/responses.jsonl").read_text().splitlines()]
    assert len(rows) == len(fake.prompts) == len(Small().examples("eval"))
    assert {row["tokens"] for row in rows} == {3, 4}
    assert "forget.rougeL" in scores
    evaluate(open_model(folder), Small(), tmp_path / "y", max_new_tokens=4, progress=False)
    other = [json.loads(line) for line in (tmp_path / "y/responses.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] != [row["text"] for row in other]  # no answer of one for the other


def test_what_vllm_cannot_do_is_refused(fake, folder, tmp_path):
    with pytest.raises(UserError, match="likelihood"):
        evaluate(str(folder), Small(), tmp_path / "x", progress=False, backend="vllm", likelihood=True)
    with pytest.raises(UserError, match="folder"):
        evaluate(open_model(folder), Small(), tmp_path / "x", progress=False, backend="vllm")


def test_without_vllm_the_way_out_is_said(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install unsee\[vllm\]"):
        backend.generate(folder, tiny_processor(), Llava(), ASKED, max_new_tokens=1)


@pytest.mark.gpu
def test_parity_with_vllm():
    """Greedy answers of the lab agree but for near ties, which other kernels may break otherwise."""
    pytest.importorskip("vllm")
    if not torch.cuda.is_available():
        pytest.skip("vLLM needs a GPU here")
    from unsee.data.open import open_benchmark
    from unsee.models.builtin import resolve
    from unsee.models.checkpoint import load

    lab = load("lab")
    examples = open_benchmark("lab").examples("eval")[::20]
    asked = [Prompt.of(example) for example in examples]
    ours = generate(lab, asked, max_new_tokens=40)
    theirs = backend.generate(resolve("lab"), lab.processor, lab.family, asked, max_new_tokens=40)
    same = sum(one.token_ids == other.token_ids for one, other in zip(ours, theirs, strict=True))
    assert same >= 0.9 * len(asked)
