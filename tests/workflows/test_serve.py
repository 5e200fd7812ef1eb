"""The page that asks the model before and after: who may connect, what is read, and what the answers are called."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from unsee import config
from unsee.api import Example, Kind, Response, Role, Vocabulary
from unsee.api.request import Completion, Prompt
from unsee.cli import main
from unsee.config import Run
from unsee.errors import UserError
from unsee.exporting import export
from unsee.models.checkpoint import load, open_switchable, save_model
from unsee.testing.tiny import PEOPLE, QUESTION, person, save_tiny
from unsee.workflows.requests import intake
from unsee.workflows.requests.intake import Intake
from unsee.workflows.requests.project import Project
from unsee.workflows.serve import serve as workflow
from unsee.workflows.serve.app import App
from unsee.workflows.serve.filing import Filing
from unsee.workflows.serve.judging import NOBODY, judge
from unsee.workflows.serve.questions import LONGEST, Catalogue, read
from unsee.workflows.serve.server import MOST_BODY, Access, PageServer
from unsee.workflows.serve.sides import open_sides
from unsee.workflows.serve.turns import Turns
from unsee.workflows.serve.uploads import MOST_BYTES, decode_upload

TOKEN = "a token of the test"
LEAK = "This is Ada Lovell, a baker from Lisbon."
CLEAN = "The picture shows a smiling person with short hair, large round glasses and a shirt before a wall."


def scripted(text):
    """Return a side that says a text, word by word."""
    return Scripted(label=text.split()[0], text=text)


@dataclass
class Scripted:
    label: str
    text: str
    hold: threading.Event | None = None
    """What it waits for after the first word."""
    heard: list = field(default_factory=list)

    def say(self, example, on_text):
        self.heard.append(example)
        words = self.text.split(" ")
        for count in range(1, len(words) + 1):
            on_text(" ".join(words[:count]))
            if count == 1 and self.hold is not None:
                assert self.hold.wait(20)
        return Completion(self.text, tuple(range(len(words))), ended=True)


class Broken:
    label = "broken"

    def say(self, example, on_text):
        raise ZeroDivisionError("a fault")


def catalogue():
    rows = [
        person("ada", Role.FORGET),
        person("ada", Role.UNSEEN, 8),
        person("bo", Role.FORGET),
        person("cleo", Role.RETAIN),
    ]
    names = {entity: (name,) for entity, (name, *_) in PEOPLE.items()}
    return Catalogue(rows=rows, vocabulary=Vocabulary(names=names), total=len(rows))


@contextmanager
def serving(*sides, turns=16, filing=None, **access):
    app = App(title="<b>run</b>", sides=sides, catalogue=catalogue(), turns=Turns(turns), filing=filing)
    with PageServer(app, Access(port=0, token=TOKEN, **access)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture
def page():
    with serving(scripted(LEAK), scripted(CLEAN)) as server:
        yield server


def sent(server, path, values=None, *, token=TOKEN, **headers):
    """Send a request and return the open response."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    given = {"Authorization": f"Bearer {token}"} if token else {}
    if values is not None:
        body = values if isinstance(values, bytes) else json.dumps(values)
        link.request("POST", path, body, {**given, "Content-Type": "application/json", **headers})
    else:
        link.request("GET", path, headers={**given, **headers})
    return link.getresponse()


def asked(server, **values):
    """Return all events of a question."""
    reply = sent(server, "/api/ask", {"question": QUESTION, **values})
    assert reply.status == 200
    return [json.loads(line) for line in reply]


def judged(events):
    return [event for event in events if "verdict" in event]


def picture(form="PNG", size=(20, 10), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, "red" if mode == "RGB" else 1).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def test_both_models_answer_and_the_leak_is_marked(page):
    events = asked(page, picture=0)
    assert [event["text"] for event in events if event.get("side") == 0 and "text" in event][:3] == [
        "",
        "This",
        "This is",
    ]
    before, after = judged(events)
    assert (before["verdict"], after["verdict"]) == ("leak", "clean")
    assert [text for text, private in before["pieces"] if private] == ["Ada Lovell", "baker", "Lisbon"]
    assert after["pieces"] == [[CLEAN, 0]]
    assert events[-1] == {"done": True}


def test_the_first_words_arrive_before_the_last_are_there():
    hold = threading.Event()
    with serving(Scripted("one", "first last", hold)) as server:
        reply = sent(server, "/api/ask", {"question": QUESTION, "picture": 0})
        assert json.loads(reply.readline())["text"] == ""
        assert json.loads(reply.readline())["text"] == "first"
        hold.set()
        assert json.loads(reply.readline())["text"] == "first last"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (LEAK, "leak"),
        ("the the the the the the the the the the the the", "degenerate"),
        ("This is Bo Winter.", "hallucination"),
        ("I am sorry, I cannot help with that.", "refusal"),
        ("This is a picture.", "uninformative"),
        (CLEAN, "clean"),
    ],
)
def test_the_classes_are_those_of_the_report(text, verdict):
    with serving(scripted(text)) as server:
        (found,) = judged(asked(server, upload=picture(), entity="ada"))
    assert (found["verdict"], found["why"]) == (verdict, "")


def test_a_picture_of_an_unknown_person_is_not_judged(page):
    for found in judged(asked(page, upload=picture())):
        assert (found["verdict"], found["why"]) == ("missing", NOBODY)
        assert not any(private for _, private in found["pieces"])


def test_answers_about_others_are_right_or_wrong_or_missing():
    rows = catalogue()
    row = rows.example("Who is this?", entity="cleo")
    said = Completion("It is Cleo Marsh.", (1, 2), ended=True)
    assert judge(person("cleo", Role.RETAIN, kind=Kind.NAME), said, rows.vocabulary).verdict == "right"
    found = judge(row, said, rows.vocabulary)
    assert found.verdict == "missing"
    assert "has no reference answer" in found.why
    refused = replace(said, text="I am sorry, I cannot help with that.")
    assert judge(row, refused, rows.vocabulary).verdict == "refusal"


def test_an_answer_in_another_script_is_missing_with_the_reason():
    rows = catalogue()
    found = judge(rows.example(QUESTION, entity="ada"), Completion("Это Ада Ловелл", (1,), ended=True), rows.vocabulary)
    assert found.verdict == "missing"
    assert "in a script in which the private string is not given" in found.why


def test_questions_know_what_their_rows_know():
    rows = catalogue()
    own = rows.example("What is on the wall?", picture=0)
    assert (own.entity, own.kind, own.answer) == ("ada", "open", "")
    assert own.visible == {"shirt": "red"}
    assert rows.example(QUESTION, picture=0) == rows.rows[1]  # held-out pictures come first
    upload = decode_upload(picture())
    new = rows.example(QUESTION, upload=upload, entity="ada")
    assert (new.role, new.image, new.visible) == (Role.UNSEEN, upload, {})
    assert new.private["city"] == ("Lisbon",)
    assert rows.example(QUESTION, entity="ada").role is Role.FORGET_TEXT
    assert rows.example(QUESTION, upload=upload, entity="cleo").role is Role.RETAIN


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": " "}, "Expected a question"),
        ({"question": "x" * (LONGEST + 1)}, "Expected a question"),
        ({"question": 3}, "question must be str"),
        ({"question": "Who\ud800?"}, "question holds half a character (the surrogate U+D800) at place 4"),
        ({"picture": 99}, "no picture 99"),
        ({"picture": True}, "picture must be int"),
        ({"entity": "<img>"}, "nobody called '<img>'"),
        ({"upload": "%%%"}, "not base64"),
        ({"upload": base64.b64encode(b"<svg onload=alert(1)>").decode()}, "none of PNG, JPEG"),
        ({"upload": picture("TIFF")}, "none of PNG, JPEG"),
        ({"upload": picture()[:80] + "AAAA"}, "The picture cannot be decoded"),
        ({"upload": picture(size=(6000, 5000), mode="1")}, "at most 25 million"),
        ({"upload": "A" * (MOST_BYTES * 4 // 3 + 8)}, "more than 8 MiB"),
    ],
)
def test_what_cannot_be_asked_is_said(page, values, message):
    (event,) = asked(page, **values)
    assert message in event["error"]
    assert not page.app.sides[0].heard


def test_only_who_knows_the_token_sees_the_run(page):
    for token in ("", "wrong", TOKEN + "x"):
        for path in ("/api/content", "/api/picture/0"):
            assert sent(page, path, token=token).status == 401
        assert sent(page, "/api/ask", {"question": QUESTION}, token=token).status == 401
    for path in ("/", "/page.js", "/page.css"):
        reply = sent(page, path, token="")
        assert reply.status == 200
        assert b"Ada" not in reply.read()
    assert json.loads(sent(page, "/api/content").read())["entities"][0]["name"] == "Ada Lovell"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "", "localhost.evil.example", "10.0.0.7"])
def test_another_name_for_this_machine_is_refused(page, host):
    reply = sent(page, "/", Host=host)
    assert reply.status == 421
    assert b"token" not in reply.read()


def test_this_machine_has_its_names(page, monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", lambda: "Box.Example.org")
    for host in ("localhost:1", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert sent(page, "/", Host=host).status == 200
    other = Access(host="0.0.0.0", token="x" * 16)
    assert other.is_own_host("192.168.1.5:7860")
    assert other.is_own_host(socket.gethostname())
    assert other.is_own_host("Box.Example.org:7860")
    assert not other.is_own_host("evil.example")
    assert Access(host="box.lan", token="x" * 16).is_own_host("BOX.lan:7860")


def test_pages_of_other_sites_are_refused(page):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        assert sent(page, "/api/content", **{"Sec-Fetch-Site": site}).status == status
    assert sent(page, "/api/ask", {}, **{"Content-Type": "text/plain"}).status == 415


def test_every_response_forbids_foreign_scripts(page):
    for path, token in (("/", ""), ("/api/content", TOKEN), ("/api/content", ""), ("/nothing", TOKEN)):
        headers = sent(page, path, token=token).headers
        assert "default-src 'none'; script-src 'self';" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    ("values", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"[" * 50_000, {}, 400),
        (b"{}", {"Content-Length": "-1"}, 411),
        (b"", {"Content-Length": str(MOST_BODY + 1)}, 413),
    ],
)
def test_what_is_no_request_is_refused(page, values, headers, status):
    assert sent(page, "/api/ask", values, **headers).status == status


def test_unknown_pages_and_methods_are_refused(page):
    for path in ("/api/picture/999", "/api/picture/x", "/api/picture/../0", "/../page.js", "/api/other"):
        assert sent(page, path).status in (400, 404)
    assert sent(page, "/api/other", {}).status == 404
    link = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=20)
    link.request("DELETE", "/<script>")
    reply = link.getresponse()
    assert reply.status == 501
    assert b"script" not in reply.read()


def test_a_second_question_waits_and_is_told():
    hold = threading.Event()
    side = Scripted("one", "first last", hold)
    with serving(side, turns=2) as server:
        first = sent(server, "/api/ask", {"question": QUESTION, "picture": 0})
        assert json.loads(first.readline())["text"] == ""
        second = sent(server, "/api/ask", {"question": "Who is this?", "picture": 1})
        assert json.loads(second.readline()) == {"waiting": 1}
        (third,) = asked(server, picture=0)
        assert "2 questions are waiting already" in third["error"]
        assert len(side.heard) == 1
        hold.set()
        assert [json.loads(line) for line in first][-1] == {"done": True}
        assert [json.loads(line) for line in second][-1] == {"done": True}
    assert [example.question for example in side.heard] == [QUESTION, "Who is this?"]


def test_who_leaves_frees_the_model():
    class Endless:
        label = "endless"
        ended = threading.Event()

        def say(self, example, on_text):
            try:
                for count in range(10**6):
                    on_text("word " * 200 + str(count))
            except OSError:
                self.ended.set()
                raise

    with serving(Endless()) as server:
        reply = sent(server, "/api/ask", {"question": QUESTION, "picture": 0})
        reply.readline()
        reply.close()
        assert Endless.ended.wait(20)
        with server.app.turns.turn(lambda ahead: pytest.fail(f"{ahead} still ahead")):
            pass


def test_a_fault_is_shown_in_the_terminal_and_ends_nothing(capsys):
    with serving(Broken(), scripted(CLEAN)) as server:
        for _ in range(2):
            events = asked(server, picture=0)
            assert "The model failed" in events[-1]["error"]
            assert "a fault" not in json.dumps(events)
    assert "ZeroDivisionError: a fault" in capsys.readouterr().err


def test_pictures_are_made_small(page):
    reply = sent(page, "/api/picture/0")
    assert reply.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(reply.read())).size == (16, 16)


def test_nothing_is_written(page):
    written = []
    watching = True

    def hook(event, arguments):
        if watching and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(arguments[0])

    sys.addaudithook(hook)
    for form in ("PNG", "JPEG", "WEBP", "GIF"):
        assert asked(page, upload=picture(form), entity="ada")[-1] == {"done": True}
    watching = False
    assert written == []


def test_other_machines_only_with_a_token():
    for host in ("0.0.0.0", "::", "192.168.1.5", "box.lan", ""):
        with pytest.raises(UserError, match="needs a --token"):
            Access(host=host)
    with pytest.raises(UserError, match="at least 16 characters"):
        Access(host="0.0.0.0", token="short")
    with pytest.raises(UserError, match="begin or end with a blank"):
        Access(token="a token of the test ")
    with pytest.raises(UserError, match="--port must be"):
        Access(port=70000)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert Access(host=host).loopback
    with PageServer(App(title="", sides=(), catalogue=Catalogue()), Access(port=0)) as server:
        assert len(server.token) >= 32
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/#{server.token}"
        server.token = "100% of #? a token"
        assert server.url.endswith("/#100%25%20of%20%23%3F%20a%20token")  # page.js decodes it
        with pytest.raises(UserError, match="Cannot listen"):
            PageServer(server.app, Access(port=server.server_address[1]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a tiny checkpoint and an adapter on it that changes what it says."""
    from peft import LoraConfig, get_peft_model

    base = save_tiny(tmp_path_factory.mktemp("base"))
    loaded = load(base)
    torch.manual_seed(1)
    model = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    run = tmp_path_factory.mktemp("run")
    save_model(model, loaded.processor, run / "model", base=base)
    made = Run(model=str(base), data="lab", method="npo", out=str(run), eval={"max_new_tokens": 6})
    record = {"versions": config.versions(), "commit": "", "model_hash": "", "data_hash": ""}
    config.write(run / "run.yaml", made, record=record, result={"steps": 1, "seconds": 1.0, "trainable": 1})
    return base, run


def answer_of(model, example):
    from unsee.inference.generation import generate

    loaded = load(model)
    request = Prompt.of(example)
    (found,) = generate(loaded, [request], max_new_tokens=6)
    return found


def test_an_adapter_shares_one_model_with_its_base(tiny):
    base, run = tiny
    example = person("ada", Role.FORGET)
    sides = open_sides(str(run), str(base), ("before", "after"), 6)
    assert sides[0].loaded.model is sides[1].loaded.model
    expected = [answer_of(base, example), answer_of(run, example)]
    assert expected[0].text != expected[1].text
    for _ in range(2):
        texts = []
        assert [side.say(example, texts.append) for side in sides] == expected
        assert texts[-1] == expected[1].text


def test_other_pairs_are_two_models(tiny, tmp_path):
    base, run = tiny
    other = save_tiny(tmp_path / "other", seed=3)
    sides = open_sides(str(run), str(other), ("before", "after"), 6)
    assert sides[0].loaded.model is not sides[1].loaded.model
    example = person("ada", Role.FORGET)
    assert [side.say(example, lambda text: None) for side in sides] == [
        answer_of(other, example),
        answer_of(run, example),
    ]
    assert open_switchable(base) is None
    with pytest.raises(UserError, match="Give --before MODEL"):
        open_sides(str(base), "", ("before", "after"), 6)


def test_what_the_model_cannot_read_is_an_error(tiny):
    _, run = tiny
    side = open_sides(str(run), "", ("before", "after"), 6)[0]
    with pytest.raises(UserError, match="before: the question holds '<image>', a special token"):
        side.say(replace(person("ada", Role.FORGET), question="<image> Who?"), lambda text: None)


def test_the_command_serves_the_pictures_of_the_run(tiny, capsys, monkeypatch):
    _, run = tiny
    seen = {}

    def once(server):
        threading.Thread(target=lambda: ask(server), daemon=True).start()
        forever(server)

    def ask(server):
        seen["content"] = json.loads(sent(server, "/api/content", token=server.token).read())
        seen["events"] = [
            json.loads(line)
            for line in sent(server, "/api/ask", {"question": "Who?", "picture": 0}, token=server.token)
        ]
        server.shutdown()

    forever = PageServer.serve_forever
    monkeypatch.setattr(PageServer, "serve_forever", once)
    assert main.main(["serve", str(run), "--port", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("http://127.0.0.1:")
    assert seen["content"]["sides"] == [f"Before · {tiny[0].name}", "After · NPO"]
    assert len(seen["content"]["pictures"]) > 50
    assert [event["side"] for event in judged(seen["events"])] == [0, 1]


def test_judged_answers_give_the_questions(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    row = Response.of(person("ada", Role.UNSEEN), stage="npo", text=LEAK, tokens=3, ended=True, image="a.png")
    (tmp_path / "responses.jsonl").write_text(json.dumps(row.to_json()) + "\n")
    (tmp_path / "vocabulary.json").write_text('{"names": {}, "facts": {}, "visible": {}, "sentences": []}')
    found = read(tmp_path, "", "")
    assert (found.total, found.entities["ada"][0].private["job"]) == (1, ("baker",))
    assert found.picture(0).image.load().size == (4, 4)
    assert (
        judge(found.example(QUESTION, picture=0), Completion(LEAK, (1,), ended=True), found.vocabulary).verdict
        == "leak"
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"picture of the judged answer 'ada-0-open' is gone: .*a.png. Give --data"):
        read(tmp_path, "", "")


def test_judged_answers_give_all_that_questions_know(tmp_path):
    """An accepted word of a general question makes an answer right on the page as in the report."""
    known = {"accepted": ("Pacific",), "paraphrase": "It is the Pacific.", "perturbed": ("It is the Arctic.",)}
    ocean = Example(
        id="g", role=Role.GENERAL, kind=Kind.GENERAL, question="Which ocean?", answer="Pacific Ocean", **known
    )
    row = Response.of(ocean, stage="npo", text="x", tokens=3, ended=True)
    (tmp_path / "responses.jsonl").write_text(json.dumps(row.to_json()) + "\n")
    (tmp_path / "vocabulary.json").write_text('{"names": {}, "facts": {}, "visible": {}, "sentences": []}')
    (found,) = read(tmp_path, "", "").rows
    assert found == ocean


def test_a_question_of_ones_own_is_not_judged_by_the_words_of_another():
    image = decode_upload(picture())
    ocean = Example(
        id="g", role=Role.GENERAL, kind=Kind.GENERAL, question="Which ocean?", answer="Pacific", accepted=("Pacific",),
        perturbed=("Arctic",), image=image,
    )  # fmt: skip
    own = Catalogue(rows=[ocean]).example("What colour is it?", picture=0)
    assert (own.answer, own.accepted, own.perturbed, own.image) == ("", (), (), image)


def test_a_built_in_model_is_none_of_a_folder_that_shares_its_name(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "run.yaml").write_text("model: lab\ndata: nowhere\nmethod: ga\nresult: {}\n")
    (tmp_path / "lab" / "vocabulary.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workflow, "open_sides", lambda after, before, labels, _: (after, before, *labels))
    page = workflow._app("lab", "lab-gold", "", "", "")
    assert page.sides == ("lab", "lab-gold", "Before · lab-gold", "After · lab")
    assert page.catalogue == Catalogue()


def test_wrong_arguments_are_said_before_a_model_is_opened(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workflow, "open_sides", lambda *_: pytest.fail("a model was opened"))
    for words, message in (
        (["serve", "lab", "--host", "0.0.0.0"], "needs a --token"),
        (["serve", str(tmp_path / "none"), "--port", "0"], "No model at"),
        (["serve", "lab", "--before", "lab", "--data", str(tmp_path / "none")], "No data at"),
    ):
        assert main.main(words) == 2
        assert message in capsys.readouterr().err


def test_how_data_are_read_is_not_given_beside_judged_answers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workflow, "open_sides", lambda *_: pytest.fail("a model was opened"))
    monkeypatch.setattr(workflow, "folder_of", lambda _: None)
    config.write(tmp_path / "run.yaml", Run(model="lab", data="lab", method="npo"), record={}, result={})
    (tmp_path / "vocabulary.json").write_text("{}")
    assert main.main(["serve", str(tmp_path), "--benchmark", "folder", "--port", "0"]) == 2
    assert "shows the judged answers" in capsys.readouterr().err


def filed(server, **values):
    reply = sent(server, "/api/request", values)
    assert reply.status == 200
    return [json.loads(line) for line in reply]


def test_a_deletion_request_takes_the_picture_and_leaves_the_words(tmp_path, monkeypatch):
    found = Intake(
        request=Mock(id="R-00000001"), due=date(2027, 1, 1), rows=3, images=1, found=True, surfaces={}, warnings=(),
        quotes=(("Who?", "Eva Nowak"),), table=Path("data.jsonl"),
    )  # fmt: skip
    taken = []

    def add(project, name, files, *, changes):
        assert not project.folder.exists()
        taken.append((changes, name, [Image.open(file).size for file in files], files))
        return found

    monkeypatch.setattr(intake, "add", add)
    filing = Filing(folder=tmp_path / "requests", model="lab", data="lab")
    with serving(filing=filing) as server:
        working, filed_, done = filed(server, name=" Eva Nowak ", upload=picture())
        filed(server, name="Ada", picture=0)
    assert (working, done) == ({"working": True}, {"done": True})
    assert filed_["filed"][0] == "R-00000001: 3 rows, 1 picture, due 2027-01-01"
    assert "Eva" not in json.dumps(filed_)
    assert [(name, sizes) for _, name, sizes, _ in taken] == [("Eva Nowak", [(20, 10)]), ("Ada", [(16, 16)])]
    assert taken[0][0] == {"model": "lab", "data": "lab"}
    assert not any(file.exists() for *_, files in taken for file in files)


@pytest.mark.slow
def test_a_deletion_request_is_received_as_by_the_command(tiny, tmp_path):
    folder = tmp_path / "requests"
    with serving(filing=Filing(folder=folder, model=str(tiny[0]))) as server:
        events = filed(server, name="Eva Nowak", upload=picture())
        assert [next(iter(event)) for event in events] == ["working", "filed", "done"]
        (line, *_) = events[1]["filed"]
        index = line.partition(":")[0]
        assert "1 picture, due" in line
        assert events[1]["filed"][-1] == f"project: {folder}"
        project = Project(folder=folder)
        assert project.settings().model == str(tiny[0])
        assert project.request(index).name == "Eva Nowak"
        assert project.ledger.state(index).open
        assert "Eva" not in json.dumps([entry.to_json() for entry in project.ledger.entries()])
        (error,) = filed(server, name=" ", upload=picture())
        assert "Expected a name" in error["error"]
        *_, error = filed(server, name="Eva Nowak")
        assert "Give at least one picture" in error["error"]
        assert len(project.ledger.states()) == 1


def test_a_page_without_a_project_takes_no_requests(page):
    assert not page.app.content()["filing"]
    assert filed(page, name="Ada", picture=0) == [{"error": "This page takes no deletion requests."}]
    assert sent(page, "/api/request", {"name": "Ada"}, token="").status == 401


@pytest.mark.slow
def test_an_openai_endpoint_says_the_same_of_a_merged_run(tiny, tmp_path):
    """The recipe of docs/export.md, with the client it names. Needs transformers[serving] in an environment of its own."""
    for package in ("openai", "fastapi", "uvicorn"):
        pytest.importorskip(package, reason="pip install transformers[serving], in an environment of its own")
    from openai import APIConnectionError, InternalServerError, OpenAI

    merged = tmp_path / "merged"
    export(tiny[1], "merged", merged)
    (tmp_path / "own.png").write_bytes(base64.b64decode(picture()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import main; main()"
    words = [sys.executable, "-c", code, "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as endpoint:
        try:
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
            for _ in range(240):
                try:
                    client.models.list()
                    break
                except APIConnectionError:
                    time.sleep(0.5)
            url = {"url": f"data:image/png;base64,{picture()}"}
            content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "Who is this?"}]

            def said(folder):
                turns = [{"role": "user", "content": content}]
                reply = client.chat.completions.create(model=str(folder), messages=turns, max_tokens=6, temperature=0)
                return reply.choices[0].message.content.strip()

            for folder in (tiny[0], merged):
                example = replace(person("ada", Role.FORGET), question="Who is this?", image=decode_upload(picture()))
                assert said(folder) == answer_of(folder, example).text
            with pytest.raises(InternalServerError):
                said(tiny[1] / "model")
        finally:
            endpoint.terminate()


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    """Ask, upload and be shown hostile answers in Chromium. Needs playwright and a Chromium on the PATH."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pip install playwright, in an environment of its own"
    )
    chromium = shutil.which("chromium") or pytest.skip("needs Chromium")
    hostile = "<img src=x onerror=window.hit=1><script>window.hit=1</script> Ada Lovell </dd><b>bold</b>"
    (tmp_path / "own.png").write_bytes(base64.b64decode(picture()))
    with serving(scripted(hostile), scripted(CLEAN)) as server, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab, faults, hosts = browser.new_page(), [], set()
        tab.on("console", lambda message: faults.append(message.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.goto(server.url.partition("#")[0])
        tab.fill("#token", "wrong wrong wrong wrong")
        tab.click("#login button")
        tab.locator("#login .bad", has_text="The token is wrong.").wait_for()
        assert not tab.is_visible("#ask")
        faults.clear()  # the browser reports the 401
        tab.fill("#token", TOKEN)
        tab.click("#login button")
        tab.click("#gallery li:nth-child(1) button")
        tab.click(".go")
        tab.wait_for_selector(".side > div:nth-child(2) .c-clean")
        assert tab.inner_text(".side > div:nth-child(1) dd") == hostile
        assert tab.text_content(".side mark") == "Ada Lovell"
        assert tab.locator("#title").inner_text() == "<b>run</b>"
        assert tab.locator("#answers b, #answers script, #answers dd img").count() == 0
        waiting = []
        tab.route("**/api/picture/2", lambda route: waiting.extend([route]))  # comes after the next one was picked
        tab.click("#gallery li:nth-child(3) button")
        tab.click("#gallery li:nth-child(2) button")
        shown = tab.locator(".drop img[src]").get_attribute("src")
        waiting[-1].continue_()
        tab.wait_for_timeout(500)
        assert tab.locator(".drop img").get_attribute("src") == shown
        tab.click("#gallery li:nth-child(3) button")
        tab.set_input_files("input[type=file]", tmp_path / "own.png")
        tab.wait_for_selector(".none:visible")
        shown = tab.locator(".drop img[src]").get_attribute("src")
        waiting[-1].continue_()
        tab.wait_for_timeout(500)
        assert tab.locator(".drop img").get_attribute("src") == shown
        tab.fill("#question", "Who is this?")
        tab.click(".go")
        tab.locator(".card:first-child .side > div:nth-child(2) .c-missing").wait_for()
        assert NOBODY in tab.inner_text("#answers .card >> nth=0")
        assert tab.evaluate("() => [window.hit, location.hash]") == [None, ""]
        tab.set_viewport_size({"width": 360, "height": 800})
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= 360
        assert faults == []
        assert hosts - {server.url.split("/")[2]} <= {""}  # blob: and data: have none
        browser.close()
    assert server.app.sides[0].heard[-1].image is not None
