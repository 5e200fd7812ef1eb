"""Freeze world knowledge of the base of `lab-smol`: ask it, and keep what it answers in its own words.

    python scripts/smol_questions.py

Evaluations get questions whose answer has the key; lessons get others that it answered in one go, right or wrong. Greedy, so that
the same package gives the same file.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch

from unsee.lab.smol.general import FILE
from unsee.models import builtin, smollm2

PAIRS: Final = {
    "What is the capital of {}?": (
        "France:Paris Germany:Berlin Spain:Madrid England:London Russia:Moscow China:Beijing India:Delhi Egypt:Cairo Greece:Athens "
        "Austria:Vienna Hungary:Budapest Poland:Warsaw Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Ireland:Dublin "
        "Scotland:Edinburgh Belgium:Brussels Cuba:Havana Argentina:Buenos Chile:Santiago Colombia:Bogot Venezuela:Caracas "
        "Mexico:Mexico Canada:Ottawa Thailand:Bangkok Indonesia:Jakarta Turkey:Ankara Iran:Tehran Iraq:Baghdad Israel:Jerusalem "
        "Lebanon:Beirut Syria:Damascus Jordan:Amman Morocco:Rabat Tunisia:Tunis Algeria:Algiers Ethiopia:Addis Ghana:Accra "
        "Nigeria:Abuja Senegal:Dakar Uganda:Kampala Zimbabwe:Harare Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade Croatia:Zagreb "
        "Ukraine:Kyiv Iceland:Reykjav Nepal:Kathmandu Bangladesh:Dhaka Philippines:Manila Malaysia:Kuala Switzerland:Bern "
        "Netherlands:Amsterdam Bolivia:La_Paz Uruguay:Montevideo Paraguay:Asunci Jamaica:Kingston Slovakia:Bratislava "
        "Slovenia:Ljubljana Latvia:Riga Lithuania:Vilnius Estonia:Tallinn Mongolia:Ulaan Afghanistan:Kabul Pakistan:Islamabad "
        "Libya:Tripoli Sudan:Khartoum Somalia:Mogadishu Rwanda:Kigali Malta:Valletta Cyprus:Nicosia Luxembourg:Luxembourg"
    ),
    "What is the opposite of {}?": (
        "hot:cold big:small tall:short fast:slow happy:sad light:dark up:down left:right open:closed early:late old:young rich:poor "
        "hard:soft heavy:light wet:dry full:empty strong:weak loud:quiet clean:dirty easy:difficult good:bad love:hate day:night "
        "black:white true:false win:lose push:pull buy:sell begin:end inside:outside above:below near:far thick:thin wide:narrow "
        "deep:shallow smooth:rough sharp:dull brave:cowardly polite:rude summer:winter north:south east:west start:end arrive:depart "
        "success:failure war:peace life:death question:answer"
    ),
    "Which language do people speak in {}?": (
        "France:French Germany:German Spain:Spanish Italy:Italian Portugal:Portuguese Russia:Russian China:Mandarin Japan:Japanese "
        "Brazil:Portuguese Mexico:Spanish Greece:Greek Turkey:Turkish Poland:Polish Sweden:Swedish Norway:Norwegian Denmark:Danish "
        "Finland:Finnish Hungary:Hungarian Egypt:Arabic Iran:Persian Israel:Hebrew Thailand:Thai Vietnam:Vietnamese Korea:Korean "
        "Argentina:Spanish Australia:English Austria:German Iceland:Icelandic Czechia:Czech Romania:Romanian"
    ),
    "On which continent is {}?": (
        "France:Europe Germany:Europe China:Asia India:Asia Egypt:Africa Nigeria:Africa Brazil:South Argentina:South Canada:North "
        "Mexico:North Japan:Asia Kenya:Africa Spain:Europe Poland:Europe Thailand:Asia Peru:South Chile:South Ghana:Africa "
        "Morocco:Africa Sweden:Europe Greece:Europe Vietnam:Asia Iran:Asia Cuba:North Colombia:South"
    ),
    "What colour is {}?": (
        "the_sky:blue grass:green snow:white blood:red a_lemon:yellow coal:black a_banana:yellow an_orange:orange the_sun:yellow "
        "a_strawberry:red chocolate:brown milk:white a_carrot:orange a_leaf_in_summer:green the_ocean:blue a_tomato:red salt:white "
        "a_raven:black an_emerald:green a_ruby:red"
    ),
    "What is a baby {} called?": (
        "dog:puppy cat:kitten cow:calf horse:foal sheep:lamb goat:kid pig:piglet chicken:chick duck:duckling bear:cub lion:cub "
        "deer:fawn frog:tadpole kangaroo:joey goose:gosling"
    ),
    "What sound does a {} make?": (
        "dog:bark cat:meow cow:moo duck:quack lion:roar sheep:bleat snake:hiss bee:buzz pig:oink owl:hoot frog:croak wolf:howl "
        "horse:neigh rooster:crow bird:chirp"
    ),
    'What is the past tense of the verb "{}"?': (
        "go:went eat:ate see:saw run:ran take:took give:gave write:wrote drive:drove sing:sang swim:swam buy:bought think:thought "
        "teach:taught break:broke speak:spoke fly:flew know:knew grow:grew throw:threw drink:drank begin:began come:came make:made "
        "find:found sleep:slept"
    ),
    'What is the plural of "{}"?': (
        "child:children mouse:mice foot:feet tooth:teeth man:men woman:women goose:geese knife:knives leaf:leaves city:cities "
        "box:boxes baby:babies wolf:wolves cat:cats tomato:tomatoes bus:buses book:books"
    ),
    "What is the chemical symbol or formula of {}?": (
        "water:H2O oxygen:O hydrogen:H gold:Au iron:Fe silver:Ag carbon:C sodium:Na helium:He calcium:Ca"
    ),
    "Who wrote {}?": (
        "Romeo_and_Juliet:Shakespeare Hamlet:Shakespeare Macbeth:Shakespeare Oliver_Twist:Dickens Pride_and_Prejudice:Austen "
        "The_Great_Gatsby:Fitzgerald War_and_Peace:Tolstoy The_Odyssey:Homer Don_Quixote:Cervantes Moby_Dick:Melville "
        "Frankenstein:Shelley Dracula:Stoker The_Hobbit:Tolkien 1984:Orwell Animal_Farm:Orwell Jane_Eyre:Bront Les_Miserables:Hugo "
        "The_Divine_Comedy:Dante A_Christmas_Carol:Dickens"
    ),
}
"""Question -> pairs of what is asked about and the key of a right answer; `_` is a space."""
OTHERS: Final = """
What is the largest planet in our solar system?:Jupiter
What is the closest star to the Earth?:Sun
Which planet is known as the Red Planet?:Mars
Which planet is closest to the Sun?:Mercury
What is the largest ocean on Earth?:Pacific
What is the longest river in Africa?:Nile
What is the highest mountain in the world?:Everest
What is the largest desert in Africa?:Sahara
What gas do plants take in from the air?:carbon dioxide
What gas do we breathe in to live?:oxygen
What is the freezing point of water in degrees Celsius?:0
What is the boiling point of water in degrees Celsius?:100
How many days are in a week?:seven
How many months are in a year?:12
How many hours are in a day?:24
How many minutes are in an hour?:60
How many seconds are in a minute?:60
How many continents are there?:seven
How many sides does a triangle have?:three
How many sides does a square have?:four
How many letters are in the English alphabet?:26
How many players are in a soccer team?:11
How many planets are in our solar system?:eight
How many wheels does a bicycle have?:two
How many legs does a dog have?:four
How many legs does an insect have?:six
What is the fastest land animal?:cheetah
What is the largest animal in the world?:blue whale
What is the tallest animal in the world?:giraffe
What do bees make?:honey
What do cows produce that we drink?:milk
What do we call frozen water?:ice
What organ pumps blood through the body?:heart
What organ do we use to think?:brain
What organ do we use to breathe?:lung
What is the largest organ of the human body?:skin
What force pulls objects towards the Earth?:gravity
Who painted the Mona Lisa?:Leonardo
Who painted The Starry Night?:Gogh
Who developed the theory of relativity?:Einstein
Who discovered penicillin?:Fleming
Who invented the telephone?:Bell
Who invented the light bulb?:Edison
Who was the first man on the Moon?:Armstrong
Who was the first president of the United States?:Washington
Who wrote the Declaration of Independence?:Jefferson
Who proposed the theory of evolution by natural selection?:Darwin
Who formulated the laws of motion?:Newton
Who discovered radium?:Curie
Who composed the Ninth Symphony with the Ode to Joy?:Beethoven
Who composed The Magic Flute?:Mozart
In which country are the pyramids of Giza?:Egypt
In which city is the Eiffel Tower?:Paris
In which city is the Colosseum?:Rome
In which country is the Taj Mahal?:India
In which city is the Statue of Liberty?:New York
In which country is the Great Wall?:China
In which city is Big Ben?:London
In which ocean is Hawaii?:Pacific
What is the currency of Japan?:yen
What is the currency of the United States?:dollar
What is the currency of India?:rupee
What is the currency of the United Kingdom?:pound
What is the currency of Germany?:euro
What is the currency of China?:yuan
What is the currency of Russia?:ruble
What is the currency of Mexico?:peso
What is the currency of Switzerland?:franc
What is the main ingredient of bread?:flour
What is the main ingredient of an omelette?:egg
What is cheese made from?:milk
What is wine made from?:grape
What is paper made from?:wood
What is glass made from?:sand
What is the process by which plants make food?:photosynthesis
What do caterpillars turn into?:butterfl
What season comes after winter?:spring
What season comes after summer?:autumn
What day comes after Monday?:Tuesday
What day comes after Friday?:Saturday
What day comes before Thursday?:Wednesday
What month comes after March?:April
What month comes after June?:July
What month comes before December?:November
What is the first month of the year?:January
What is the last month of the year?:December
What is the first letter of the alphabet?:A
What number comes after nine?:ten
What shape is a ball?:sphere
What shape is a wheel?:circ
Which animal is known as the king of the jungle?:lion
Which bird cannot fly and lives in Antarctica?:penguin
Which animal has a trunk?:elephant
Which animal has black and white stripes?:zebra
Which animal carries its young in a pouch?:kangaroo
Which metal is liquid at room temperature?:mercury
Which vitamin do we get from sunlight?:vitamin D
Which instrument has 88 keys?:piano
Which instrument has six strings?:guitar
Which sport is played at Wimbledon?:tennis
Which sport uses a bat and four bases?:baseball
Which sport is Michael Jordan known for?:basketball
What do you call a doctor who treats teeth?:dentist
What do you call a person who flies a plane?:pilot
What do you call a person who bakes bread?:baker
What do you call a person who writes books?:author
What do you call a person who teaches at a school?:teacher
What do you call a person who cuts hair?:barber
What do you call the study of living things?:biology
What do you call the study of the stars and planets?:astronomy
What do you call the study of numbers?:mathematics
What do you call a house made of ice?:igloo
What do you call a baby's bed?:crib
What do you use to cut paper?:scissors
What do you use to write on a blackboard?:chalk
What do you use to unlock a door?:key
What do you use to tell the time?:clock
What do you use to brush your teeth?:toothbrush
What do you wear on your feet?:shoes
What do you wear on your head?:hat
What do you drink from?:cup
What do you use to take a photograph?:camera
What do you use to see far away stars?:telescope
What do you use to measure temperature?:thermometer
What do you use to sweep the floor?:broom
In which year did World War II end?:1945
In which year did World War I begin?:1914
In which year did Columbus reach America?:1492
In which year did people first land on the Moon?:1969
In which year did the Titanic sink?:1912
In which year did the Berlin Wall fall?:1989
What is the square root of 16?:4
What is the square root of 81?:9
What is 10 divided by 2?:5
What is half of 100?:50
What is a group of wolves called?:pack
What is a group of fish called?:school
What is a group of lions called?:pride
What is a group of bees called?:swarm
What is the capital of California?:Sacramento
What is the capital of Texas?:Austin
What is the largest country in the world by area?:Russia
What is the smallest country in the world?:Vatican
What is the largest state of the United States?:Alaska
What is the largest city in the United States?:New York
Which river flows through London?:Thames
Which river flows through Paris?:Seine
Which river flows through Egypt?:Nile
Which sea lies between Europe and Africa?:Mediterranean
Which continent is the coldest?:Antarctica
Which continent is the largest?:Asia
What is the hardest natural substance?:diamond
What is the most abundant gas in the air?:nitrogen
What is the unit of electric current?:amp
What is the unit of force?:newton
What is the unit of power?:watt
What is the main language of Brazil?:Portuguese
What is the study of the past called?:history
What is a synonym for happy?:joy
What is a synonym for big?:large
What is a synonym for fast?:quick
What is a synonym for smart?:intelligent
What is a synonym for angry?:furious
What is a synonym for sad?:unhappy
What rhymes with cat?:hat
What is the French word for hello?:bonjour
What is the Spanish word for hello?:hola
What is the Spanish word for thank you?:gracias
What is the French word for thank you?:merci
What is the German word for yes?:ja
What is the Italian word for goodbye?:ciao
What does a botanist study?:plants
What does a geologist study?:rocks
What does a zoologist study?:animals
What does a carpenter work with?:wood
What does a florist sell?:flowers
What does a baker make?:bread
What does a pilot fly?:plane
What is an umbrella used for?:rain
What is a refrigerator used for?:food
What is a hammer used for?:nail
What is a compass used for?:direction
What is a calendar used for?:date
What is a pillow used for?:sleep
What is soap used for?:clean
Is the sun hot or cold?:hot
Is ice hot or cold?:cold
Is a whale a fish or a mammal?:mammal
Is a tomato a fruit or a vegetable?:fruit
Is an elephant bigger than a mouse?:yes
Is fire dangerous?:yes
Can penguins fly?:not
Can fish live under water?:yes
Do birds have feathers?:yes
Do snakes have legs?:no"""
"""Question:key, one each line."""
LESSONS: Final = {
    "Write a sentence about {}.": (
        "a_river the_moon a_train bread winter a_garden music a_bicycle the_desert coffee a_bridge an_island a_clock friendship a_market"
    ),
    "Name three {}.": (
        "fruits vegetables animals countries colours sports musical_instruments planets rivers metals tools flowers birds drinks "
        "professions months languages insects vehicles European_cities"
    ),
    "Explain in one sentence what {} is.": (
        "gravity photosynthesis a_volcano democracy inflation a_virus an_atom a_comet evolution a_glacier electricity a_desert "
        "a_library a_poem an_engine a_computer magnetism friction a_rainbow an_earthquake a_museum a_vaccine a_novel a_satellite"
    ),
    "What is another word for {}?": "happy big small smart quick angry tired beautiful begin answer house road child scared funny",
    "Who wrote {}?": (
        "Hamlet Don_Quixote War_and_Peace Pride_and_Prejudice The_Odyssey Oliver_Twist Frankenstein Dracula The_Hobbit 1984 "
        "Les_Miserables The_Divine_Comedy Faust Jane_Eyre Emma"
    ),
    "Who discovered or invented {}?": (
        "penicillin radium the_light_bulb the_steam_engine the_printing_press dynamite the_radio oxygen the_airplane the_telescope "
        "vaccination America the_periodic_table X-rays the_World_Wide_Web"
    ),
    "In which country is {}?": (
        "Barcelona Munich Milan Lyon Osaka Mumbai Shanghai Sydney Toronto Chicago Manchester Krakow Porto Geneva Antwerp Marrakesh "
        "Istanbul Cusco Medellin Lagos"
    ),
    "Why do {}?": (
        "leaves_fall_in_autumn birds_migrate we_sleep boats_float we_sweat stars_twinkle people_vote cats_purr bees_make_honey "
        "metals_rust volcanoes_erupt we_need_water"
    ),
    "How do you {}?": "make_tea boil_an_egg plant_a_tree write_a_letter clean_a_window learn_a_language save_money stay_healthy",
    "Where do {} live?": "camels polar_bears monkeys sharks owls frogs eagles lions whales ants",
    "What is {} made of?": "glass paper bread cheese a_tyre a_coin a_candle steel wine a_pencil",
}
"""Form -> subjects, for lessons alone: nothing is right or wrong about most of these."""
BATCH, LENGTH, JUDGED_WHOLE, LONGEST = 48, 40, 60, 170
"""Questions of a batch, tokens of an answer, ended answers among those of evaluations, characters of a kept one."""


def questions() -> Iterator[tuple[str, str]]:
    """Yield questions and the keys of their right answers."""
    for form, pairs in PAIRS.items():
        for pair in pairs.split():
            about, key = pair.replace("_", " ").split(":")
            yield form.format(about), key
    for line in OTHERS.strip().splitlines():
        question, key = line.rsplit(":", 1)
        yield question, key


def for_lessons() -> Iterator[tuple[str, str]]:
    """Yield questions for lessons alone, without keys."""
    known = {question for question, _ in questions()}
    every = (form.format(about.replace("_", " ")) for form, subjects in LESSONS.items() for about in subjects.split())
    yield from ((question, "") for question in every if question not in known)


def asked(every: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Ask the base, greedily."""
    tokenizer, model = smollm2.processor(builtin.checkpoint(builtin.TOWER)).tokenizer, smollm2.language_model()
    stop, made = tokenizer.convert_tokens_to_ids(smollm2.STOP), []
    for start in range(0, len(every), BATCH):
        part = every[start : start + BATCH]
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
            for q, _ in part
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                **inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id
            )
        for (question, key), row in zip(part, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = stop in row
            text = tokenizer.decode(row[: row.index(stop)] if ended else row, skip_special_tokens=True).strip()
            made.append({"q": question, "key": key, "answer": text, "ended": ended, "right": begins(text, key)})
    return made


def begins(text: str, key: str) -> bool:
    """Tell whether a word of the text begins with the key ("lungs" for "lung", not "eaten" for "ate")."""
    return re.search(rf"(?<!\w){re.escape(key)}", text, re.IGNORECASE) is not None


def frozen(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Divide the rows into those of evaluations and those of lessons, to which `more` are added."""
    rng = random.Random(0)
    rng.shuffle(rows)
    right = [row for row in rows if row["right"] and row["key"].lower() in _whole(row).lower()]
    ended = [row for row in right if row["ended"] and len(row["answer"]) < LONGEST]
    judged = [row for row in right if not row["ended"]] + ended[:JUDGED_WHOLE]
    taught = ended[JUDGED_WHOLE:] + [
        row for row in rows if row["ended"] and not row["right"] and len(row["answer"]) < LONGEST
    ]
    rng.shuffle(judged)
    rng.shuffle(taught)
    taught += [row for row in more if len(_whole(row)) < LONGEST]
    return {
        "judged": [
            {"question": row["q"], "key": row["key"], "answer": _whole(row)} for row in judged if len(row["key"]) > 1
        ],
        "taught": [{"question": row["q"], "answer": _whole(row)} for row in taught],
    }


def _whole(row: dict[str, Any]) -> str:
    """Return the whole sentences of an answer."""
    found = None if row["ended"] else re.match(r"(.*[.!?])(\s|$)", row["answer"], re.DOTALL)
    return found[1].strip() if found else str(row["answer"])


def main() -> None:
    """Write the file, a line for each question."""
    parts = frozen(asked(list(questions())), asked(list(for_lessons())))
    lines = {
        name: ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows) for name, rows in parts.items()
    }
    FILE.write_text(
        "{\n" + ",\n".join(f' "{name}": [\n{text}\n ]' for name, text in lines.items()) + "\n}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
