"""Writes the probe suites beside it: `python probes/build.py`. Every label is gold by construction. CC0.

Words and sentences are our own. In each suite a target stands at one place of one frame under both conditions, and what tells
the conditions apart comes before it, so that a model that reads from left to right can know.
"""

from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
Word = tuple[str, str, str, str, int, str, str, str]  # form, lemma, upos, feats, head, deprel, supersense, supersense2
NUMBER = ("Number=Sing", "Number=Plur")
SUBJECTS = ("I", "We", "They", "You")
WANT = ("want", "need", "like", "prefer")
WHEN = ("now", "today", "again", "here")

FORMS = """answer attack book call change cook cover dance dream drink drive fight guess guide help hope joke judge kiss laugh
lock mix paint park plan play rest ride sail sleep smile sound stand study swim talk test trade travel walk""".split()  # noqa: SIM905

# word: first sense, its cues (who did what), second sense, its cues
SENSES = """
bank: n.GROUP, manager joined, clerk left | n.NATURALOBJECT, otter climbed, river flooded
bat: n.ANIMAL, owl hunted, naturalist tagged | n.ARTIFACT, batter swung, carpenter polished
chicken: n.ANIMAL, farmer chased, fox stalked | n.FOOD, waiter served, cook fried
lamb: n.ANIMAL, shepherd carried, ewe fed | n.FOOD, chef roasted, butcher sliced
turkey: n.ANIMAL, hunter startled, hen followed | n.FOOD, guest tasted, grandmother stuffed
duck: n.ANIMAL, child fed, swan bit | n.FOOD, diner ordered, chef glazed
crane: n.ANIMAL, frog feared, birdwatcher spotted | n.ARTIFACT, builder hired, engineer repaired
seal: n.ANIMAL, shark chased, diver met | n.ARTIFACT, notary broke, plumber replaced
mouse: n.ANIMAL, cat caught, snake ate | n.ARTIFACT, programmer clicked, technician unplugged
mole: n.ANIMAL, badger smelled, gardener trapped | n.BODY, doctor removed, surgeon examined
palm: n.PLANT, gardener watered, storm uprooted | n.BODY, nurse washed, fortune-teller studied
bulb: n.PLANT, gardener planted, squirrel dug | n.ARTIFACT, electrician changed, janitor unscrewed
plant: n.PLANT, botanist watered, caterpillar ate | n.ARTIFACT, company closed, union struck
nail: n.BODY, manicurist filed, toddler bit | n.ARTIFACT, carpenter hammered, roofer bent
organ: n.BODY, surgeon transplanted, patient received | n.ARTIFACT, musician tuned, church bought
chest: n.BODY, doctor bandaged, athlete shaved | n.ARTIFACT, pirate buried, thief unlocked
glass: n.SUBSTANCE, furnace melted, factory recycled | n.ARTIFACT, waiter filled, drinker emptied
paper: n.SUBSTANCE, mill bleached, printer loaded | n.COMMUNICATION, scholar published, reviewer rejected
court: n.GROUP, judge addressed, lawyer petitioned | n.LOCATION, player crossed, groundskeeper swept
party: n.GROUP, senator joined, voter supported | n.EVENT, host planned, neighbour attended
star: n.NATURALOBJECT, astronomer measured, telescope found | n.PERSON, reporter interviewed, fan adored
match: n.EVENT, team won, referee stopped | n.ARTIFACT, camper lit, smoker struck
date: n.TIME, secretary moved, calendar showed | n.FOOD, baker pitted, camel chewed
fan: n.PERSON, singer hugged, usher seated | n.ARTIFACT, mechanic oiled, breeze spun
model: n.PERSON, painter posed, photographer hired | n.ARTIFACT, hobbyist glued, architect scaled
club: n.GROUP, member joined, treasurer left | n.ARTIFACT, golfer swung, caveman carved
spring: n.TIME, farmer awaited, swallow announced | n.ARTIFACT, watchmaker wound, mechanic compressed
band: n.GROUP, drummer joined, promoter booked | n.ARTIFACT, jeweller stretched, tailor sewed
cell: n.BODY, biologist stained, virus entered | n.LOCATION, guard locked, prisoner swept
port: n.LOCATION, captain reached, navy blocked | n.FOOD, drinker sipped, vintner aged
""".strip()  # fmt: skip

AGREE = """dog/dogs child/children smiles/smile|cat/cats window/windows sleeps/sleep|nurse/nurses doctor/doctors listens/listen
teacher/teachers student/students waits/wait|bird/birds tree/trees sings/sing|baker/bakers oven/ovens hums/hum
guard/guards gate/gates yawns/yawn|farmer/farmers cow/cows walks/walk|poet/poets river/rivers dreams/dream
horse/horses barn/barns rests/rest|singer/singers drum/drums dances/dance|pilot/pilots plane/planes laughs/laugh
lawyer/lawyers judge/judges nods/nod|sailor/sailors ship/ships swims/swim|cook/cooks table/tables eats/eat""".replace("\n", "|")

# noun: what was done to it (or by it), what was done at it, what it was let do
ROLES = """dog chased ran after play|nurse helped waited for rest|teacher praised looked at speak
singer admired talked about sing|driver stopped shouted at leave
baker paid cared for work|sailor saved searched for swim
guard pushed pointed at sleep
farmer visited listened to eat|poet mocked laughed at read|dancer followed stared at dance|captain blamed argued with win
child watched looked after hide|soldier attacked fought with march|judge thanked agreed with decide""".replace("\n", "|")


def pos() -> str:
    """Same word form, noun or verb: "I want the book now." "I want to book now."; "My book helps." "We book often."."""
    made = []
    for i, form in enumerate(FORMS):
        subject, want, when = SUBJECTS[i % 4], WANT[i // 4 % 4], WHEN[i // 2 % 4]
        start = [_w(subject, "PRON", 2, "nsubj"), _w(want, "VERB", 0, "root")]
        noun = [*start, _w("the", "DET", 4, "det"), _w(form, "NOUN", 2, "obj"), _w(when, "ADV", 2, "advmod"), _stop(2)]
        verb = [*start, _w("to", "PART", 4, "mark"), _w(form, "VERB", 2, "xcomp"), _w(when, "ADV", 4, "advmod"), _stop(2)]
        made += [
            _sentence(f"pos-{form}-noun", noun, pair=form, condition="noun"),
            _sentence(f"pos-{form}-verb", verb, pair=form, condition="verb"),
        ]
        noun = [
            _w("Our", "PRON", 2, "nmod:poss"),
            _w(form, "NOUN", 3, "nsubj"),
            _w("helps", "VERB", 0, "root", "help"),
            _stop(3),
        ]
        verb = [_w("We", "PRON", 2, "nsubj"), _w(form, "VERB", 0, "root"), _w("often", "ADV", 2, "advmod"), _stop(2)]
        if i < 20:
            made += [
                _sentence(f"pos2-{form}-noun", noun, pair=form, condition="noun"),
                _sentence(f"pos2-{form}-verb", verb, pair=form, condition="verb"),
            ]
    return "\n".join(made)


def sense() -> str:
    """Same noun, another supersense: "The farmer chased the chicken." "The waiter served the chicken."."""
    made = []
    for line in SENSES.splitlines():
        word, _, rest = line.partition(": ")
        for sense_number, half in enumerate(rest.split(" | ")):
            supersense, *cues = half.split(", ")
            for cue_number, cue in enumerate(cues):
                who, did = cue.split()
                words = [_w("The", "DET", 2, "det", "the"), _w(who, "NOUN", 3, "nsubj"), _w(did, "VERB", 0, "root"),
                         _w("the", "DET", 5, "det"), _w(word, "NOUN", 3, "obj", supersense=supersense), _stop(3)]  # fmt: skip
                made.append(_sentence(f"sense-{word}-{sense_number}{cue_number}", words, pair=word, condition=supersense))
    return "\n".join(made)


def agreement() -> str:
    """Subject and verb agree, the noun between them need not: "The dog near the children smiles."; said of the verb alone."""
    made, items = [], [[pair.split("/") for pair in item.split()] for item in AGREE.split("|")]
    for i, (subjects, nouns, verbs) in enumerate(items):
        for n, m, between in product((0, 1), (0, 1), (nouns, items[i - 1][1])):
            said = "match" if n == m else "mismatch"
            words = [_w("The", "DET", 2, "det", "the"), _w(subjects[n], "NOUN", 6, "nsubj", subjects[0], NUMBER[n])]
            words += [_w("near", "ADP", 5, "case"), _w("the", "DET", 5, "det")]
            words += [_w(between[m], "NOUN", 2, "nmod", between[0], NUMBER[m])]
            words += [_w(verbs[n], "VERB", 0, "root", verbs[1], NUMBER[n], role=said), _stop(6)]
            name = f"agreement-{subjects[n]}-{between[m]}"
            made.append(_sentence(name, words, pair=subjects[0], condition=said))
    return "\n".join(made)


def roles() -> str:
    """One noun as object or oblique, as agent or theme, all four: relation is form, role (supersense2) is meaning."""
    made = []
    for item in ROLES.split("|"):
        noun, done, at, by_word, let = item.split()
        start, they = _w("Today", "ADV", 4, "advmod"), _w("they", "PRON", 4, "nsubj")
        first, everyone = _w("They", "PRON", 3, "nsubj"), _w("all", "DET", 2, "det")
        det = _w("the", "DET", 6, "det")
        theme, agent = {"role": "p.Theme"}, {"role": "p.Agent"}
        four = {
            "obj-theme": [start, they, everyone, _w(done, "VERB", 0, "root"), det, _w(noun, "NOUN", 4, "obj", **theme),
                          _stop(4)],
            "obl-theme": [first, _w("all", "DET", 1, "det"), _w(at, "VERB", 0, "root"), _w(by_word, "ADP", 6, "case"), det,
                          _w(noun, "NOUN", 3, "obl", **theme), _stop(3)],
            "obj-agent": [start, they, everyone, _w("let", "VERB", 0, "root"), det, _w(noun, "NOUN", 4, "obj", **agent),
                          _w(let, "VERB", 4, "xcomp"), _stop(4)],
            "obl-agent": [first, _w("were", "AUX", 3, "aux:pass", "be"), _w(done, "VERB", 0, "root"),
                          _w("by", "ADP", 6, "case"), det, _w(noun, "NOUN", 3, "obl", **agent), _stop(3)],
        }  # fmt: skip
        made += [_sentence(f"roles-{noun}-{name}", words, pair=noun, condition=name) for name, words in four.items()]
    return "\n".join(made)


def _w(
    form: str, upos: str, head: int, deprel: str, lemma: str = "", feats: str = "_", supersense: str = "_", role: str = "_"
) -> Word:
    return form, lemma or ("_" if upos == "VERB" else form.lower()), upos, feats, head, deprel, supersense, role


def _stop(head: int) -> Word:
    return _w(".", "PUNCT", head, "punct")


def _sentence(name: str, words: list[Word], **labels: str) -> str:
    """One sentence, its own document; 19 columns (CONLLULEX) where a word has a supersense, else 10 (CoNLL-U)."""
    text = " ".join(word[0] for word in words[:-1]) + words[-1][0]
    lines = [f"# newdoc id = {name}", f"# sent_id = {name}", f"# text = {text}"] + [
        f"# meta::{k} = {v}" for k, v in labels.items()
    ]
    wide = any(word[6] != "_" or word[7] != "_" for word in words)
    for number, (form, lemma, upos, feats, head, deprel, supersense, role) in enumerate(words, start=1):
        misc = "SpaceAfter=No" if number == len(words) - 1 else "_"
        cells = [str(number), form, lemma, upos, "_", feats, str(head), deprel, "_", misc]
        lines.append("\t".join(cells + (["_", "_", "_", supersense, role, "_", "_", "_", "_"] if wide else [])))
    return "\n".join(lines) + "\n"


SUITES = {"pos.conllu": pos, "sense.conllulex": sense, "agreement.conllulex": agreement, "roles.conllulex": roles}

if __name__ == "__main__":
    for file, suite in SUITES.items():
        (HERE / file).write_text(suite(), encoding="utf-8")
