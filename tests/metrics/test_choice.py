"""Which option a text picks: letters in every form that models give them, and lists of the options, which pick none."""

# ruff: noqa: RUF001 - scripts other than Latin
import time

import pytest

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.metrics.choice import choice
from unsee.scoring.aggregate import score

four = ("baker", "pilot", "diver", "chemist")
CASES = [
    ("B\n\nThe person wears a suit.", four, "B"),
    ("B because of the hat", four, "B"),
    ("answer: d", four, "D"),
    ("ANSWER: D", four, "D"),
    ("I think it's C", four, "C"),
    ("I think it\u2019s C.", four, "C"),
    (r"\boxed{C}", four, "C"),
    (r"So $\boxed{\text{C}}$.", four, "C"),
    ("<answer>B</answer>", four, "B"),
    ("<answer> (b) </answer>", four, "B"),
    ("答案是B", four, "B"),
    ("B。", four, "B"),
    ("Ｂ", four, "B"),
    ("（B）", four, "B"),
    ("答案：Ｂ。", four, "B"),
    ("选B", four, "B"),
    ("選択肢Bです", four, "B"),
    ("正解はBです。", four, "B"),
    ("정답은 B입니다", four, "B"),
    ("Ответ: B", four, "B"),
    ("Respuesta: B", four, "B"),
    ("La respuesta es B.", four, "B"),
    ("Die Antwort ist C.", four, "C"),
    ("Réponse : B", four, "B"),
    ("الجواب هو B", four, "B"),
    ("A. baker\nB. pilot\nC. diver\nD. chemist", four, ""),
    ("A) baker\nB) pilot\nC) diver\nD) chemist", four, ""),
    ("(A) baker (B) pilot (C) diver (D) chemist", four, ""),
    ("A: baker, B: pilot, C: diver, D: chemist", four, ""),
    ("A - baker\nB - pilot\nC - diver\nD - chemist", four, ""),
    ("A.baker B.pilot C.diver D.chemist", four, ""),
    ("**A.** baker **B.** pilot **C.** diver **D.** chemist", four, ""),
    ("- A. baker\n- B. pilot\n- C. diver\n- D. chemist", four, ""),
    ("A. baker\nB. pilot\nC. diver\nD. chemist\n\nAnswer: B", four, "B"),
    ("A. baker\nB. pilot\nC. diver\nD. chemist\n\nB", four, "B"),
    ("The answer is a pilot.", four, "B"),
    ("The answer is a.", four, "A"),
    ("Answer: a", four, "A"),
    ("Answer: A pilot", four, "B"),
    ("The answer is A because he bakes.", four, "A"),
    ("The answer is A, the baker.", four, "A"),
    ("A pilot.", four, "B"),
    ("A", four, "A"),
    ("a", four, "A"),
    ("A.", four, "A"),
    ("A person in a suit.", four, ""),
    ("A baker", four, "A"),
    ("Option B is incorrect.", four, ""),
    ("The correct option is (C).", four, "C"),
    ("The answer is not B.", four, ""),
    ("It is A.", four, "A"),
    ("It is a pilot", four, "B"),
    ("It's B", four, "B"),
    ("Final answer: **C**", four, "C"),
    ("[[D]]", four, "D"),
    ("B, because", four, "B"),
    ("B - pilot", four, "B"),
    ("B. pilot", four, "B"),
    ("B: pilot", four, "B"),
    ("B) pilot", four, "B"),
    ("(B) pilot", four, "B"),
    ("**B** pilot", four, "B"),
    ("**B. pilot**", four, "B"),
    ("A or B", four, ""),
    ("I would choose C", four, "C"),
    ("I'd go with D.", four, "D"),
    ("C is the correct answer.", four, "C"),
    ("option c", four, "C"),
    ("Option: c", four, "C"),
    ("choice (d)", four, "D"),
    ("the letter is d", four, "D"),
    ("I am not sure.", four, ""),
    ("I", tuple("xyzuvwrst"), "I"),
    ("B\nB", four, "B"),
    ("A\nB\nC\nD", four, ""),
    ("Cannot say", four, ""),
    ("Dear friend, I do not know", four, ""),
    ("B，因为他穿制服", four, "B"),
    ("B、飞行员", four, "B"),
    ("B因为", four, "B"),
    ("「B」", four, "B"),
    ("【B】", four, "B"),
    ("Answer:B", four, "B"),
    ("Answer = B", four, "B"),
    ("The answer is: B", four, "B"),
    ("The answer is option B.", four, "B"),
    ("Answer: option B", four, "B"),
    ("#### B", four, "B"),
    ("B/", four, ""),
    ("Antwort: D", four, "D"),
    ("I don't know the answer. A person", four, ""),
    ("The answer depends on a lot", four, ""),
    ("As an answer I say C", four, "C"),
    ("None of these options. A baker and a pilot", four, ""),
    ("A. baker. The other options do not fit.", four, "A"),
    ("A. baker, not B. pilot", four, "A"),
    ("The choice a person makes", four, ""),
    ("my answer is diver", four, "C"),
    ("The best choice is d because of the suit.", four, "D"),
    ("The answer is d as in diver", four, "D"),
    ("answer d", four, "D"),
    ("Answer: B or C", four, ""),
    ("The answer is B. A, C and D are wrong.", four, "B"),
    ("Option (B) fits, since A and C do not.", four, "B"),
    ("I think it is A, B or C", four, ""),
    ("B, C", four, ""),
    ("A/D", four, ""),
    ("B, a pilot in a uniform", four, "B"),
    ("选项：C", four, "C"),
    ("应该选C", four, "C"),
    ("所以答案为D", four, "D"),
    ("I think it is C", four, "C"),
    ("i think it's c", four, "C"),
    ("Answer (B)", four, "B"),
    ("ANSWER IS B", four, "B"),
    ("\\boxed{\\mathrm{B}}", four, "B"),
    ("boxed{B}", four, "B"),
    ("<ANSWER>C</ANSWER>", four, "C"),
    ("<think>A or B?</think><answer>B</answer>", four, "B"),
    ("E", four, ""),
    ("respuesta correcta: D", four, "D"),
    ("La réponse correcte est B.", four, "B"),
    ("答え: B", four, "B"),
    ("答えはCです", four, "C"),
    ("Poprawna odpowiedź to C.", four, "C"),
    ("คำตอบคือ B", four, "B"),
    ("सही उत्तर: C", four, "C"),
    ("$\\text{B}$", four, "B"),
    ("The text {B} is written there", four, ""),
    ("I don't think it is B", four, ""),
    ("I do not believe that the answer is B.", four, ""),
    ("I don\u2019t think it\u2019s a pilot, it is a diver.", four, "C"),
    ("It isn't option B.", four, ""),
    ("The answer is not option B.", four, ""),
    ("It is not option B, but option C.", four, "C"),
    ("It is neither option B nor option C, it is D", four, "D"),
    ("It is not (B).", four, ""),
    ("It is not (A), (B) or (C).", four, ""),
    ("It is not (A), but (B).", four, "B"),
    ("B, not option C", four, "B"),
    ("not a pilot", four, ""),
    ("Not a pilot or a diver.", four, ""),
    ("It is a baker. Not a pilot.", four, "A"),
    ("Not a pilot, baker or diver, but a chemist.", four, "D"),
    ("No, a pilot.", four, "B"),
    ("I'm not sure, but it is B", four, "B"),
    ("He does not look like a baker, so the answer is B", four, "B"),
    ("There is no doubt that it is B.", four, "B"),
    ("no hat", ("hat", "no hat"), "B"),
    ("no", ("yes", "no"), "B"),
    ("trade 26", [f"trade {place}" for place in range(1, 28)], "Z"),
    ("trade 27", [f"trade {place}" for place in range(1, 28)], ""),
]


@pytest.mark.parametrize(("text", "options", "letter"), CASES)
def test_picks(text, options, letter):
    assert choice(text, options) == letter


def test_how_many_pick_nothing_stands_beside_the_score():
    texts = ("B", "A", "I cannot say.", "A. baker\nB. pilot\nC. diver\nD. chemist")
    rows = [
        Response(
            id=str(place),
            stage="npo",
            role=Role.UNSEEN,
            kind=Kind.CHOICE,
            fact="job",
            entity=str(place),
            question="Job?",
            answer="B",
            text=text,
            tokens=2,
            ended=True,
            options=four,
            image_key="i",
        )
        for place, text in enumerate(texts)
    ]
    scores = score(rows, Vocabulary())
    assert scores["unseen.choice"].value == 0.25
    assert scores["unseen.choice.no_pick"].value == 0.5


@pytest.mark.parametrize("cue", ["The answer is", "I choose", r"\boxed{", "<answer>option", "The answer is (option"])
def test_thousands_of_blanks_take_no_time(cue):
    start = time.perf_counter()
    assert choice(cue + "\n" * 5000 + "None", four) == ""
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("answer", "options", "text", "right"),
    [
        ("Oslo", ("Rome", "Oslo"), "B", {"first_character", "first_alphanumeric", "answer_is"}),
        ("Oslo", ("Rome", "Oslo"), "Oslo", {"text_exact", "text_nearest"}),
        ("Paris", ("Rome", "Oslo"), "Rome", None),
        ("Oslo", (), "Oslo", None),
    ],
)
def test_published_rules_know_the_right_option_by_letter_and_by_text(answer, options, text, right):
    names = [
        f"choice.{name}" for name in "first_character first_alphanumeric answer_is text_exact text_nearest".split()
    ]
    row = Response(
        id="1", stage="x", role=Role.RETAIN, kind=Kind.CHOICE, fact="", entity="e", question="?", answer=answer,
        text=text, tokens=2, ended=True, options=options, image_key="i",
    )  # fmt: skip
    scores = {name: score([row], Vocabulary(measures=tuple(names)))[f"retain.{name}"] for name in names}
    wanted = {name: None if right is None else float(name.partition(".")[2] in right) for name in names}
    assert {name: score.value for name, score in scores.items()} == wanted
    assert {score.why for score in scores.values()} == {
        "1 reference answers name none of their options" if right is None else ""
    }
