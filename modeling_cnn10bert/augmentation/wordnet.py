"""Open WordNet through NLTK, and choose the synonyms that EDA uses."""

import functools
import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path

import nltk
from nltk.corpus.reader.wordnet import Lemma, Synset, WordNetCorpusReader
from tqdm import tqdm

from ..errors import DataError
from ..files import replaced_whole

DEBIAN_FOLDER = Path("/usr/share/wordnet")  # of the packages wordnet-base and wordnet-sense-index: WordNet 3.0
ASSEMBLED_FOLDER = Path.home() / ".cache" / "cnn10bert" / "nltk_data"

# Lexicographer files in the order of lexnames(5WN). NLTK needs this table, which Debian documents but does not ship.
_LEXNAMES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state noun.substance
noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact
verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl
"""
_SYNTACTIC_CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}

# Words of the closed classes have no synonyms to speak of; WordNet takes "a" for a vitamin and "as" for arsenic.
_FUNCTION_WORDS = """
a an the this that these those some any no every each either neither both all such same other another
i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours
ourselves they them their theirs themselves who whom whose which what one ones someone something nothing everything
about above across after against along amid among around as at before behind below beneath beside besides between
beyond by down during except for from in inside into like near of off on onto out outside over past per since than
through throughout till to toward towards under until unto up upon via with within without
and but or nor so yet if because while whereas although though when whenever where wherever whether
am is are was were be been being do does did doing done have has had having will would shall should can could may
might must ought not dont doesnt isnt arent cant there here then too very just also only
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

# A part of speech is plausible for a word if it has at least this share of the uses that WordNet counted.
MIN_SHARE_OF_USES = 0.1

# Names in WordNet's usage pointers for language that does not describe recordings.
_MARKED_USAGE = {"obscenity", "slang", "ethnic_slur", "disparagement"}
_CAPITALIZED = re.compile("(^|_)[A-Z][a-z]")  # Vanessa_Stephen and Canis_familiaris, but neither TV nor H2O


def load_wordnet() -> WordNetCorpusReader:
    """
    Open WordNet, which takes a few seconds.

    Raises:
        DataError: as `find_wordnet`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The multilingual functions are not available")
        return WordNetCorpusReader(find_wordnet(), None)


def find_wordnet() -> nltk.data.PathPointer:
    """
    Find WordNet in NLTK's data folders, else assemble it there from Debian's packages, else download it with NLTK.

    Raises:
        DataError: it cannot be obtained in any of these ways.
    """
    if str(ASSEMBLED_FOLDER) not in nltk.data.path:
        nltk.data.path.append(str(ASSEMBLED_FOLDER))  # NLTK reads nothing outside its data folders
    for obtain in (lambda: None, _assemble, lambda: nltk.download("wordnet", str(ASSEMBLED_FOLDER), quiet=True)):
        obtain()
        for place in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
            try:
                return nltk.data.find(place)
            except LookupError:
                pass
    raise DataError(
        "found no WordNet, which p_syn needs, and could not download it; get it by "
        "`python -m nltk.downloader wordnet`, or on Debian and Ubuntu by "
        "`apt-get install wordnet-base wordnet-sense-index`, or set p_syn to 0"
    )


def _assemble() -> None:
    """Copy Debian's files, because NLTK follows no link out of its folders, and add the table that they lack."""
    if not all((DEBIAN_FOLDER / name).is_file() for name in ("data.noun", "index.sense")):  # one of each package
        return
    target = ASSEMBLED_FOLDER / "corpora" / "wordnet"
    with replaced_whole(target) as unfinished:
        unfinished.mkdir()
        for file in DEBIAN_FOLDER.iterdir():
            if file.is_file():  # other packages put folders there
                shutil.copyfile(file, unfinished / file.name)
        lines = [
            f"{number:02}\t{name}\t{_SYNTACTIC_CATEGORIES[name.split('.')[0]]}\n"
            for number, name in enumerate(_LEXNAMES.split())
        ]
        (unfinished / "lexnames").write_text("".join(lines), encoding="ascii")


def synonyms_of(words: Iterable[str], wordnet: WordNetCorpusReader) -> dict[str, tuple[str, ...]]:
    """Map each word that has synonyms to them. They are looked up once, because the database is slow."""
    found = {word: synonyms(word, wordnet) for word in tqdm(words, desc="Looking up synonyms", leave=False)}
    return {word: others for word, others in found.items() if others}


def synonyms(word: str, wordnet: WordNetCorpusReader) -> tuple[str, ...]:
    """
    Return the other words of all synsets that `word` belongs to in a plausible part of speech.

    A part of speech is plausible if a good share of the word's uses that WordNet counted are in it, or if none was
    counted at all: "water" is no verb, "barks" is noun and verb. Inflected words are looked up by their base form, and
    synonyms are base forms.

    Proper names are left out: synsets of a single person, place or thing, and capitalized words. So are synsets and
    words that WordNet marks as slang, slurs, disparaging or obscene, and names with a word that has any meaning marked
    as obscene.

    Args:
        word: lower-case, without punctuation.
        wordnet: from `load_wordnet`.

    Returns:
        Synonyms, sorted and in lower case, with spaces in compounds; never the word itself or its base form. Empty for
        words of a closed class (articles, pronouns, prepositions, ...) and for words that WordNet does not know.
    """
    if word in FUNCTION_WORDS:
        return ()
    uses, found, own = {}, {}, {word}
    for part in "nvar":
        base = wordnet.morphy(word, part)
        if base is None:
            continue
        own.add(base)
        lemmas = wordnet.lemmas(base, part)
        uses[part] = sum(lemma.count() for lemma in lemmas)
        synsets = [lemma.synset() for lemma in lemmas]
        plain = [synset for synset in synsets if not synset.instance_hypernyms() and not _is_marked(synset)]
        names = {lemma.name() for synset in plain for lemma in synset.lemmas() if not _is_marked(lemma)}
        names = {name for name in names if not _CAPITALIZED.search(name)}
        names = {name for name in names if _obscene_words(wordnet).isdisjoint([name, *name.split("_")])}
        found[part] = {name.replace("_", " ").lower() for name in names}
    total = sum(uses.values())
    return tuple(
        sorted({name for part in found if uses[part] >= MIN_SHARE_OF_USES * total for name in found[part]} - own)
    )


def _is_marked(meaning: Synset | Lemma) -> bool:
    """Tell whether WordNet marks a synset, or a word in one, as of `_MARKED_USAGE`."""
    return any(_MARKED_USAGE & set(domain.lemma_names()) for domain in _synsets(meaning.usage_domains()))


@functools.lru_cache(maxsize=1)
def _obscene_words(wordnet: WordNetCorpusReader) -> frozenset[str]:
    """Collect the words of all synsets that WordNet marks as obscene."""
    marked = [synset for domain in wordnet.synsets("obscenity", "n") for synset in domain.in_usage_domains()]
    return frozenset(name for synset in _synsets(marked) for name in synset.lemma_names())


def _synsets(meanings: Iterable[Synset | Lemma]) -> list[Synset]:
    """Replace words in a synset by the synset."""
    return [meaning.synset() if isinstance(meaning, Lemma) else meaning for meaning in meanings]
