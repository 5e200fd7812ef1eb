"""Detection of text that is not English, for which English rules are unreliable.

The rule, in this order:

1. Words of a script other than Latin make up more than a fifth of the letters: not English.
2. Words that only English has are counted against words that only other languages in Latin letters have (pronouns, verbs,
   negations, apologies of some twenty languages, without accents). More of the latter, and at least two or in a text of at
   most four words: not English.
3. No English word at all, and at least two words in small letters with accents, or at least twelve words: not English.
4. Else English. Names, numbers and single words are no evidence, so that "Oslo" is judged as before.

Only languages written in Latin letters with few of these words can be missed; short texts in them are taken for English.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from unsee.metrics.normal_form import normalise
from unsee.metrics.scripts import script

OTHER_SCRIPT: Final = 0.2
"""Share of non-Latin letters from which a text is not English."""
SHORT: Final = 4
"""Longest text in words for which a single foreign word decides."""
ACCENTED: Final = 2
LONG: Final = 12

_ENGLISH: Final = frozenset(
    (
        "the of and to that this these those it its with for not are were been have has had he she his her they them "
        "their there here what which who whose when where why how can cannot could would should will shall must may "
        "might do does did don doesn didn isn aren wasn you your yours my mine we our us from by at or but if than then "
        "because about into over i m be being am both each some any no none such only very just also as well one two an "
        "on is was in a so out up person man woman people image picture photo name known unknown wearing wears wear "
        "looks smiling hair eyes shirt hat glasses jacket coat background standing sitting holding long short red blue "
        "green black white brown yellow gray grey sorry unable information identify answer question option yes like see "
        "know think say work works live lives born "
    ).split()
)
_SHARED: Final = frozenset(
    ("i m be am an on is was in a so no as will had man me do did at us does hat her he over ").split()
)
"""English words that other languages share; they count only without other evidence."""
_BY_LANGUAGE: Final = (
    # French, Spanish, Portuguese, Italian, Catalan, Romanian
    "je ne pas peux puis nous vous il elle est sont cette cet ces une dans avec pour mais que qui sur aucune aucun",
    "desole suis ai ont n est c etre personne connais sais quoi votre notre leur tres aussi parce",
    "yo puedo puede esta este ese esa eso una con por pero lo siento no se quien como muy tambien soy tengo nada desconocido",
    "persona identificar sobre informacion porque donde cuando hacer usted nuestro",
    "eu nao voce ele ela uma com para mas desculpe posso pode isso isto quem sou tenho nada pessoa porque onde tambem",
    "io non posso mi dispiace sono questa questo della nel con che chi anche una persona identificare perche dove niente",
    "ho ed lei lui spiace sconosciuto sconosciuta",
    "mujer hombre lleva pelo gafas camisa femme homme porte cheveux lunettes chemise donna uomo capelli occhiali mulher homem",
    "cabelo oculos",
    "jo puc aquesta aquest amb pero ho sento",
    "nu pot este sunt aceasta acest pentru dar imi pare rau stiu persoana cine",
    # German, Dutch, Danish, Norwegian, Swedish, Icelandic
    "ich nicht kann konnen kein keine keinen und ist sind eine einer einem einen diese dieser dieses mit auf fur von zu",
    "frau haare brille hemd traegt tragt vrouw draagt kvinna kvinne mies nainen",
    "leider tut mir leid entschuldigung weiss wer wie auch nur sich uber wir sie es das dass ahnung hat habe oder aber unbekannt",
    "ik niet kan geen een en het deze dit dat met voor van zijn wij jullie maar weet spijt helaas wie ook over hij zij",
    "jeg ikke kan ingen og er denne dette den det som med til har vet ved hvem ogsa beklager desvaerre desverre",
    "jag inte och ar detta att som med till har vet vem ocksa tyvarr ledsen personen",
    "eg ekki og er thessi thetta sem veit",
    # Polish, Czech, Slovak, Croatian, Serbian, Slovene, Lithuanian, Latvian
    "nie moge jest ta ten osoba osoby z na przepraszam przykro mi wiem kto jak ale tego zidentyfikowac",
    "nemohu nemuzu je tato tento osobu omlouvam vim kdo ale nemozem viem prepacte",
    "ne mogu ova ovaj osobu zao mi znam tko ko ali ne morem ta oseba oprostite zal",
    "negaliu tai sis asmuo atsiprasau nezinau nevaru sis cilveks atvainojiet nezinu",
    # Finnish, Estonian, Hungarian, Turkish, Azerbaijani
    "en voi tama on ole mina sina han valitettavasti pahoillani tieda kuka ja",
    "ma ei saa see isik vabandust tea kes",
    "nem tudom ez az egy szemely sajnalom sajnos vagyok kicsoda hogy es azonositani",
    "bu kisi bir degil icin ve ben uzgunum maalesef bilmiyorum kim tanimlayamam kisiyi mumkun tanimiyorum",
    # Indonesian, Malay, Tagalog, Vietnamese, Swahili
    "saya tidak bisa boleh dapat ini itu orang yang dan dengan untuk maaf adalah siapa dia tahu mengidentifikasi",
    "hindi ko ang ng mga si ako po ito paumanhin alam sino taong",
    "toi khong the nguoi nay la xin loi biet va cua mot trong ai",
    "siwezi hii huyu mtu na kwa ya samahani sijui nani ni",
)
_FOREIGN: Final = frozenset(" ".join(_BY_LANGUAGE).split()) - (
    _ENGLISH
    | frozenset(
        (
            "ho the la na er ta si ma mi ko en es ya ja ai see den tut ten dan kim han pot tea nu jo yo ed das von van non "
            "po ang eg con sur puis mir ve io nada kan ben sie mina sina ela elle eu tai ale zu det med "
        ).split()
    )
)
"""Without accents. Particles of names (de, la, von, van, el) and English words are left out."""


@lru_cache(maxsize=65536)
def english(text: str) -> bool:
    """Tell whether nothing speaks against English (rules: the module's docstring).

    >>> [english(text) for text in ("I cannot name her.", "Je ne peux pas identifier cette personne.", "这是张伟。", "Oslo")]
    [True, False, False, True]
    """
    letters = [script(char) for char in unicodedata.normalize("NFKC", text)]
    scripts = [letter_script for letter_script in letters if letter_script]
    if sum(letter_script != "latin" for letter_script in scripts) > OTHER_SCRIPT * len(scripts):
        return False
    words = normalise(text).split()
    english_words = sum(word in _ENGLISH and word not in _SHARED for word in words)
    foreign_words = sum(word in _FOREIGN for word in words)
    if foreign_words > english_words and (foreign_words >= 2 or len(words) <= SHORT):
        return False
    if any(word in _ENGLISH for word in words):
        return True
    return _accented_count(text) < ACCENTED and len(words) < LONG


def _accented_count(text: str) -> int:
    """Count lower-case words with letters that English has only in loanwords."""
    words = (word for word in text.split() if word[:1].islower())
    return sum(any(not char.isascii() and char.isalpha() for char in word) for word in words)
