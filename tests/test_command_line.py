"""`python -m minitf`: text from either format, models from one to the other, and errors that say what to change."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import random_params, tokenformer, transformer

from minitf import __main__ as command_line
from minitf import checkpoint, growth, model
from minitf.backend import tree_items
from minitf.data import BPETokenizer, CharTokenizer, train_bpe

ROOT = Path(command_line.__file__).parent.parent
TEXT = "so shaken as we are, so wan with care,\nfind we a time for frighted peace to pant"
CHARACTERS = CharTokenizer.from_text(TEXT)
PAIRS = train_bpe(TEXT, 270)
SIZES = {"context": 12, "d_model": 16, "attention_tokens": 6, "ffn_tokens": 8}
CONFIG = tokenformer(vocab_size=CHARACTERS.vocab_size, **SIZES)
WIDE = tokenformer(vocab_size=PAIRS.vocab_size + 300, **SIZES)  # padded, as the release's vocabulary is


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with ours.safetensors, a folder `release` as it is released, and nothing else."""
    monkeypatch.chdir(tmp_path)
    extra = {"tokenizer": CHARACTERS.to_json()}
    checkpoint.save("ours.safetensors", random_params(CONFIG, dtype=np.float32), CONFIG, extra=extra)
    Path("release").mkdir()
    checkpoint.save_official("release", random_params(WIDE, dtype=np.float32), WIDE)
    PAIRS.tokenizer.save("release/tokenizer.json")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Function that runs a command line and returns what it printed; a failure raises AssertionError."""

    def run(line, *words, status=0):
        got = command_line.main([*line.split(), *words])
        out, err = capsys.readouterr()
        assert got == status, err
        assert "Traceback" not in err and (err.count("\n") == (1 if status else 0)), err
        return err if status else out

    return run


def text_of(out):
    return out.split("\n\n", 1)[1].removesuffix("\n")


def test_the_models_of_lesson_00_in_a_process_of_its_own():
    command = [
        sys.executable,
        "-m",
        "minitf",
        "generate",
        "--weights",
        "figures/shakespeare_model.safetensors",
    ]
    command += ["--prompt", r"JULIET:\nO, ", "--tokens", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "393,504 parameters, 1.6 MB" in done.stdout
    assert re.fullmatch(r"JULIET:\nO, (?s:.{12})", text_of(done.stdout))


def test_a_bar_shows_the_progress(monkeypatch, run, folder):
    seen = []

    def bar(iterable, description, **options):
        seen.append((description, options["total"]))
        return command_line_progress(iterable, description, **options)

    command_line_progress = command_line.progress
    monkeypatch.setattr(command_line, "progress", bar)
    run("generate --weights ours.safetensors --tokens 5 --prompt so")
    assert seen == [("generating", 5)]


@pytest.mark.parametrize("options", ["", "--temperature 0", "--temperature 0.7 --top-k 3 --seed 5"])
def test_text_of_our_checkpoint_is_that_of_generate(run, options):
    words = options.split()
    chosen = {w[2:].replace("-", "_"): float(v) for w, v in zip(words[::2], words[1::2], strict=True)}
    chosen = {name: value if name == "temperature" else int(value) for name, value in chosen.items()}
    out = run(f"generate --weights ours.safetensors --tokens 20 {options}", "--prompt", "so\nwan")
    params, config = checkpoint.load("ours.safetensors")
    # 26 tokens: the window of 12 has slid
    ids = model.generate(params, CHARACTERS.encode("so\nwan"), 20, config, **chosen)
    assert text_of(out) == CHARACTERS.decode(ids)
    assert (
        f"{sum(a.size for _, a in tree_items(params)):,} parameters" in out
        and "MB of memory (float32)" in out
    )


@pytest.mark.parametrize("weights", ["release", "release/pytorch_model.bin"])
def test_text_of_the_releases_files_without_the_ids_that_pad_its_vocabulary(run, weights):
    out = run(f"generate --weights {weights} --tokens 30 --prompt", "we are")
    params, config = checkpoint.load_official("release")
    assert config == WIDE
    ids = model.generate(params, PAIRS.encode("we are"), 30, config)
    assert (ids >= PAIRS.vocab_size).any()
    assert text_of(out) == PAIRS.decode(ids[ids < PAIRS.vocab_size])


def test_no_tokens_is_the_prompt_and_a_prompt_may_be_longer_than_the_context(run):
    assert text_of(run("generate --weights ours.safetensors --tokens 0", "--prompt", TEXT)) == TEXT
    assert text_of(run("generate --weights ours.safetensors --tokens 1", "--prompt", TEXT)).startswith(TEXT)


def test_a_transformer_and_another_tokenizer(run):
    config = transformer(vocab_size=PAIRS.vocab_size)
    checkpoint.save("t.safetensors", random_params(config), config)
    assert "no tokenizer for t.safetensors" in run("generate --weights t.safetensors --prompt so", status=2)
    out = run("generate --weights t.safetensors --prompt so --tokens 4 --tokenizer release/tokenizer.json")
    assert "Transformer" in out and "(float64)" in out
    error = run(
        "generate --weights t.safetensors --prompt so --grow 4 --tokenizer release/tokenizer.json", status=2
    )
    assert "is a Transformer" in error


def moved(out):
    return float(re.search(r"moved by at most (\S+),", out)[1])


def test_growing_first_tells_what_it_did_to_the_logits(run):
    line = "generate --weights ours.safetensors --prompt so --tokens 15 --temperature 0"
    plain, held = run(line), run(f"{line} --grow 7")
    assert moved(held) < 1e-5 and text_of(held) == text_of(plain)
    params, config = growth.grow(*checkpoint.load("ours.safetensors"), attention_tokens=13, ffn_tokens=15)
    assert f"grown by 7 parameter tokens per layer: Tokenformer, {count(params)} parameters" in held
    rescaled = f"{line} --grow 7 --grow-tau rescale"
    assert moved(run(rescaled)) > 0.01
    assert moved(run(f"{line} --grow 6 --grow-key normal")) > 0.001
    config = tokenformer(vocab_size=CHARACTERS.vocab_size, **SIZES, proj_tokens=5)
    extra = {"tokenizer": CHARACTERS.to_json()}
    checkpoint.save("ours.safetensors", random_params(config), config, extra=extra)
    assert moved(run(f"{line} --grow 7")) < 1e-9
    assert moved(run("generate --weights release --prompt so --tokens 1 --grow 4")) < 1e-5


def count(params):
    return f"{sum(array.size for _, array in tree_items(params)):,}"


def same(path, other):
    (a, config), (b, its) = path, other
    assert config == its
    return all(x.dtype == y.dtype and np.array_equal(x, y) for (_, x), (_, y) in
               zip(tree_items(a), tree_items(b), strict=True))  # fmt: skip


def test_there_and_back_from_the_release(run):
    run("convert release m.safetensors")
    assert same(checkpoint.load("m.safetensors"), checkpoint.load_official("release"))
    out = run("convert m.safetensors again")
    assert "written: again" in out
    assert sorted(p.name for p in Path("again").iterdir()) == [
        "config.json",
        "pytorch_model.bin",
        "tokenizer.json",
    ]
    assert Path("again/pytorch_model.bin").read_bytes() == Path("release/pytorch_model.bin").read_bytes()
    line = "generate --tokens 9 --prompt so --weights"
    assert len({text_of(run(f"{line} {name}")) for name in ("release", "m.safetensors", "again")}) == 1


def test_there_and_back_from_our_checkpoint_with_its_characters(run):
    run("convert ours.safetensors out")
    run("convert out back.safetensors")
    assert same(checkpoint.load("back.safetensors"), checkpoint.load("ours.safetensors"))
    line = "generate --tokens 9 --weights"
    texts = {
        text_of(run(f"{line} {name}", "--prompt", TEXT))
        for name in ("ours.safetensors", "out", "back.safetensors")
    }
    assert len(texts) == 1
    assert "no tokens for the prompt" in run(f"{line} out --prompt é", status=2)
    kept = BPETokenizer.from_json(checkpoint.load_training("back.safetensors").extra["tokenizer"])
    assert kept.encode(TEXT).tolist() == CHARACTERS.encode(TEXT).tolist()


def test_to_a_single_file_and_from_one_without_settings(run):
    run("convert release alone.bin")
    assert not Path("config.json").exists()
    assert "pass n_heads" in run("convert alone.bin x.safetensors", status=2)
    run("convert alone.bin x.safetensors --heads 2 --context 12 --rotary 0.25")
    assert same(checkpoint.load("x.safetensors"), checkpoint.load_official("release"))


def test_what_else_a_checkpoint_held_is_kept_but_not_a_training_run(run):
    extra = {"tokenizer": CHARACTERS.to_json(), "note": [1], "training": {"step": 3}}
    checkpoint.save("ours.safetensors", random_params(CONFIG), CONFIG, extra=extra)
    run("convert ours.safetensors copy.safetensors")
    assert checkpoint.load_training("copy.safetensors").extra == {k: extra[k] for k in ("tokenizer", "note")}


def test_a_grown_model_with_a_held_tau_does_not_go_to_the_release(run):
    params, config = growth.grow(*checkpoint.load("ours.safetensors"), ffn_tokens=12)
    checkpoint.save("grown.safetensors", params, config)
    assert "anneal_tau" in run("convert grown.safetensors out", status=2)
    assert not Path("out").exists()
    checkpoint.save("grown.safetensors", params, growth.anneal_tau(config, 1))
    run("convert grown.safetensors out")
    assert json.loads(Path("out/config.json").read_text())["ffn_slot_num"] == 12


def test_a_converted_file_takes_the_place_of_its_source(run):
    before = checkpoint.load_official("release")
    run("convert release release/pytorch_model.bin")
    assert same(checkpoint.load_official("release"), before)


WRONG = {
    "generate --weights nothing --prompt x": "no file nothing",
    "generate --weights . --prompt x": "no pytorch_model.bin in the folder .; it has damaged.safetensors, empty.bin",
    "generate --weights release/tokenizer.json --prompt x": "no file of torch.save",
    "generate --weights empty.bin --prompt x": "empty.bin is empty",
    "generate --weights damaged.safetensors --prompt x": "damaged.safetensors is damaged",
    "generate --weights ours.safetensors --prompt é": "character 'é' at position 0",
    "generate --weights ours.safetensors --prompt=": "--prompt is empty",
    "generate --weights ours.safetensors --prompt so --tokens -1": "at least 0",
    "generate --weights ours.safetensors --prompt so --temperature -1": "at least 0",
    "generate --weights ours.safetensors --prompt so --temperature nan": "finite",
    "generate --weights ours.safetensors --prompt so --seed -1": "--seed is -1",
    "generate --weights ours.safetensors --prompt so --top-k 0": "at least 1",
    "generate --weights ours.safetensors --prompt so --grow 0": "at least one",
    "generate --weights ours.safetensors --prompt so --grow 2 --grow-value halved": "--grow-key copy",
    "generate --weights ours.safetensors --prompt so --heads 2": "--heads is for the release's",
    "generate --weights ours.safetensors --prompt so --tokenizer no.json": "no tokenizer no.json",
    "generate --weights ours.safetensors --prompt so --tokenizer empty.bin": "no tokenizer that the package",
    "generate --weights ours.safetensors --prompt so --tokenizer release/tokenizer.json": "do not belong together",
    "generate --weights release --prompt so --heads 4": "num_attention_heads 2, and the argument n_heads 4",
    "generate --weights odd.safetensors --prompt so": "tokenizer of another kind",
    "convert nothing x.safetensors": "no file nothing",
    "convert ours.safetensors x.txt": "name a .safetensors file",
    "convert ours.safetensors no/x.bin": "no folder no",
    "convert ours.safetensors no/x.safetensors": "no folder no",
    "convert ours.safetensors no/folder": "no/folder",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_a_user_gets_wrong_is_said_in_one_line(run, line):
    Path("empty.bin").touch()
    data = bytearray(Path("ours.safetensors").read_bytes())
    data[-5] ^= 1
    Path("damaged.safetensors").write_bytes(data)
    checkpoint.save("odd.safetensors", random_params(CONFIG), CONFIG, extra={"tokenizer": "{}"})
    assert WRONG[line] in run(line, status=2)


@pytest.mark.parametrize(
    "line", ["", "sing", "generate", "generate --weights x --prompt y --tokens z", "convert x"]
)
def test_lines_that_are_no_command_show_the_usage(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(line.split())
    assert stopped.value.code == 2 and "usage: python -m minitf" in capsys.readouterr().err


def test_help_shows_a_command_that_works(capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["--help"])
    assert stopped.value.code == 0
    assert (
        "python -m minitf generate --weights figures/shakespeare_model.safetensors" in capsys.readouterr().out
    )


def test_ctrl_c_and_a_lack_of_memory(monkeypatch, run):
    for raised, status, said in ((KeyboardInterrupt, 130, "stopped"), (MemoryError, 2, "MemoryError")):

        def stop(*_, raised=raised, **__):
            raise raised

        monkeypatch.setattr(command_line, "generate_steps", stop)
        assert said in run("generate --weights ours.safetensors --prompt so", status=status)
