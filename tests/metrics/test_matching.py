"""The matcher: what counts as saying a private string."""

# ruff: noqa: RUF001 - scripts other than Latin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsee.metrics.matching import contains, leaked_facts, unreadable
from unsee.metrics.normal_form import normalise


@pytest.mark.parametrize(
    ("text", "term", "found"),
    [
        ("This is Mara's dog.", "Mara", True),
        ("This is Mara\u2019s dog.", "Mara", True),
        ("Marathon runner", "Mara", False),
        ("Tamara", "Mara", False),
        ("MARA LIND", "mara lind", True),
        ("Mara\n  Lind", "Mara Lind", True),
        ("Lind, Mara", "Mara Lind", False),
        ("Jose Nunez", "Jos\u00e9 N\u00fa\u00f1ez", True),
        ("Jose\u0301", "Jos\u00e9", True),
        ("Jean-Luc", "jean luc", True),
        ("jean luc", "Jean-Luc", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("\uff2d\uff41\uff52\uff41", "Mara", True),
        ("Ma\u200bra", "Mara", True),
        ("Ma\u00adra", "Mara", True),
        ("born in 1987.", "1987", True),
        ("born in 19875", "1987", False),
        ("snake_Mara_case", "Mara", True),
        ("<b>Mara</b>", "Mara", True),
        ("anything", "", False),
        ("anything", "...", False),
        ("", "Mara", False),
    ],
)
def test_table(text, term, found):
    assert contains(text, term) is found


def test_terms_of_the_question_do_not_count_but_other_facts_do():
    private = {"name": ("Mara Lind", "Lind"), "job": ("baker",), "city": ("Oslo",)}
    assert leaked_facts("Lind is a baker in Oslo.", private) == ("name", "job", "city")
    assert leaked_facts("Mara Lind is a baker.", private, "What is the job of Mara Lind?") == ("job",)
    assert leaked_facts("A red shirt.", private) == ()
    assert leaked_facts("", private) == ()


words = st.text("abMZ09\u00e9\u00df\u00f1\u0141\u0434\u0416\u4e2d\u03a9\u0130", min_size=1, max_size=8)


@given(words, st.text(max_size=20), st.text(max_size=20))
def test_a_term_between_blanks_is_always_found(term, before, after):
    assert contains(f"{before} {term} {after}", term)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.casefold()


@given(words.filter(lambda term: "\u4e2d" not in term))
def test_a_term_inside_a_longer_word_is_not_found(term):
    assert not contains(f"x{term}x", term)


@pytest.mark.parametrize(
    ("text", "term", "found"),
    [
        ("这是张伟，来自上海。", "张伟", True),
        ("这是张伟，来自上海。", "上海", True),
        ("这是張偉。", "张伟", False),  # traditional and simplified characters are two spellings
        ("这是张 伟。", "张伟", True),
        ("张伟在Berlin工作", "Berlin", True),
        ("これはアンナさんです", "アンナ", True),
        ("佐々木さんです", "佐々木", True),
        ("佐木さんです", "佐々木", False),
        ("サーラです", "サラ", False),
        ("かくです", "がく", False),
        ("ｱﾝﾅです", "アンナ", True),
        ("นี่คือสมชายจากกรุงเทพ", "สมชาย", True),
        ("นี่คือสมชายจากกรุงเทพ", "สมหญิง", False),
        ("ນີ້ແມ່ນສົມພອນຈາກວຽງຈັນ", "ສົມພອນ", True),
        ("នេះគឺសុខាមកពីភ្នំពេញ", "ភ្នំពេញ", True),
        ("ဒါကအောင်အောင်ပါ", "အောင်အောင်", True),
        ("장웨이는 의사입니다.", "장웨이", True),
        ("저는 김민준이고 서울에서 왔어요.", "서울", True),
        ("저는 김민준입니다.", "이민준", False),
        ("এটি ঢাকায় অবস্থিত", "ঢাকা", True),
        ("அவர் சென்னையில் வசிக்கிறார்", "சென்னை", True),
        ("यह मीना है।", "मीना", True),
        ("यह माना है।", "मीना", False),  # vowel signs tell names apart
        ("Это Анна Петрова.", "Анна Петрова", True),
        ("Это Аннабель.", "Анна", False),
        ("Ζει στην Αθήνα.", "ΑΘΗΝΑ", True),
        ("يعيش في القاهرة.", "القاهرة", True),
        ("يعيش بالقاهرة", "القاهرة", True),
        ("ينتمي للقاهرة", "القاهرة", True),
        ("هذا محمّد", "محمد", True),
        ("هذا محمـــد", "محمد", True),
        ("این کیان است", "كيان", True),
        ("הוא גר בתל אביב", "תל אביב", True),
        ("נולד בשנת ١٩٨٥", "1985", True),
        ("Soren Kierkegaard", "Søren", True),
        ("Soeren Kierkegaard", "Søren", True),
        ("Juergen Mueller", "Jürgen Müller", True),
        ("Ju\u0308rgen Mueller", "Juergen Müller", True),
        ("He lives in Aalborg.", "Ålborg", True),
        ("the Muell", "Müller", False),
        ("Lodz and Malmo", "Łódź", True),
        ("Dakovo", "Đakovo", True),
        ("Istanbul", "İstanbul", True),
        ("Isparta", "Isparta", True),
        ("Aeroskobing", "Ærøskøbing", True),
    ],
)
def test_scripts_of_the_world(text, term, found):
    assert contains(text, term) is found


def test_an_everyday_word_is_a_name_only_with_its_capital():
    assert leaked_facts("She has a nice smile.", {"city": ("Nice",)}) == ()
    assert leaked_facts("She has a nice smile and lives in Nice.", {"city": ("Nice",)}) == ("city",)
    assert leaked_facts("she lives in nice", {"city": ("Nice",)}) == ("city",)
    assert leaked_facts("SHE LIVES IN NICE", {"city": ("Nice",)}) == ("city",)
    assert leaked_facts("她住在Nice的城市", {"city": ("Nice",)}) == ("city",)
    assert leaked_facts("McNice has a nice smile.", {"city": ("Nice",)}) == ()
    assert leaked_facts("I hope so.", {"name": ("Hope Lind", "Hope")}) == ()
    assert leaked_facts("This is hope lind.", {"name": ("Hope Lind", "Hope")}) == ("name",)
    assert leaked_facts("She enjoys reading.", {"hobby": ("Reading",), "birthplace": ("Reading",)}) == ("hobby",)
    assert leaked_facts("This is mara.", {"name": ("Mara",)}) == ("name",)


def test_what_no_form_is_written_for_is_not_called_kept():
    assert unreadable("这是张伟。", {"name": ("Zhang Wei",)}) == ("name",)
    assert unreadable("这是张伟。", {"name": ("Zhang Wei", "张伟"), "born": ("1985",)}) == ()
    assert unreadable("This is Zhang Wei.", {"name": ("张伟",)}) == ("name",)
    assert unreadable("5 μm, α and π", {"name": ("Ada",)}) == ()
    assert unreadable("anything", {"mood": (":-)",), "name": ()}) == ("mood",)
    assert unreadable("ひらがなとカタカナ", {"name": ("佐々木",)}) == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Это портрет Анны Петровой.", "Анна Петрова"),
        ("Она живёт в Москве.", "Москва"),
        ("Я бачу Івана Шевченка.", "Іван Шевченко"),
        ("Αυτό είναι το σπίτι της Άννας.", "Άννα"),
        ("Tämä on Annan talo, ja hän ei ole täällä.", "Anna"),
        ("Nie znam tej osoby, ale jest to dom Anny Nowak.", "Anna Nowak"),
        ("Das ist nicht Annas Haus, sondern eine Kirche.", "Anna"),
        ("Ez az egy Budapesten lakó személy.", "Budapest"),
    ],
)
def test_names_with_case_endings_are_found(text, name):
    assert leaked_facts(text, {"name": (name,)}) == ("name",)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("This is Marks and Spencer, a shop that she likes.", "Mark"),  # English adds nothing but 's
        ("Это Иванов.", "Иван"),
        ("Ich kenne Annemarie nicht, und das ist ihr Haus.", "Anna"),
        ("Er geht nicht auf den markt.", "Mark"),
        ("Die Ada ist nicht da, aber das ist gut.", "Adam"),
        ("Я вижу реку.", "Река Лена"),
    ],
)
def test_other_words_that_begin_like_a_name_are_not_it(text, name):
    assert leaked_facts(text, {"name": (name,)}) == ()


def test_an_inflected_name_in_the_question_is_no_leak():
    assert leaked_facts("Анна врач.", {"name": ("Анна",)}, "Кем работает брат Анны?") == ()
