"""Text from a saved model, and models from one format to another:

    python -m minitf generate --weights figures/shakespeare_model.safetensors --prompt "JULIET:\\nO, "
    python -m minitf generate --weights TokenFormer-150M --prompt "The capital of France is" --tokens 20
    python -m minitf convert TokenFormer-150M model.safetensors       and back: convert model.safetensors folder

Weights are a file of minitf's `checkpoint.save`, or the release's pytorch_model.bin or its folder, with config.json
and tokenizer.json beside it.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import checkpoint, cost, growth
from .backend import array_module, to_device, to_host, tree_items
from .data import BPETokenizer, CharTokenizer
from .model import TokenformerConfig, forward, generate_steps
from .official import to_official, weights_file
from .train import progress

TOKENIZERS = {kind.__name__: kind for kind in (BPETokenizer, CharTokenizer)}


class Model(NamedTuple):
    params: dict
    config: object
    tokenizer: object | None
    extra: dict  # what a checkpoint of minitf held besides


def main(arguments=None):
    """Run the command line; returns the exit status: 0, or 2 with one line that says what to change."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, LookupError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"minitf: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minitf: stopped", file=sys.stderr)
        return 130
    return 0


def _parser():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m minitf", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="generate | convert")

    source = argparse.ArgumentParser(add_help=False)
    release = source.add_argument_group("for the release's weights, where no config.json says it")
    release.add_argument("--heads", type=int, help="attention heads")
    release.add_argument("--rotary", type=float, help="share of each head that rotates (0.25)")
    release.add_argument("--context", type=int, help="longest sequence, in tokens (2048)")
    source.add_argument("--tokenizer", help="a tokenizer.json, if not the one beside the weights")

    command = commands.add_parser("generate", parents=[source], help="continue a text")
    command.set_defaults(run=generate)
    command.add_argument("--weights", required=True, help="a checkpoint, pytorch_model.bin or its folder")
    command.add_argument("--prompt", required=True, help=r"the text to continue; \n stands for a new line")
    command.add_argument("--tokens", type=int, default=200, help="how many tokens to add (200)")
    command.add_argument("--temperature", type=float, default=1.0, help="0: the likeliest token (1.0)")
    command.add_argument("--top-k", type=int, help="sample among the k likeliest tokens")
    command.add_argument("--seed", type=int, default=0, help="equal seeds give equal texts (0)")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda needs CuPy (cpu)")
    grown = command.add_argument_group("growing the model first")
    grown.add_argument("--grow", type=int, help="append so many parameter tokens to every layer")
    grown.add_argument("--grow-key", choices=growth.KEYS, default="zero", help="new keys (zero)")
    grown.add_argument("--grow-value", choices=growth.VALUES, default="normal", help="new values (normal)")
    grown.add_argument("--grow-tau", choices=growth.TAUS, default="hold", help="tau of grown layers (hold)")

    command = commands.add_parser("convert", parents=[source], help="between minitf and the release")
    command.set_defaults(run=convert)
    command.add_argument("source", help="a checkpoint, pytorch_model.bin or its folder")
    command.add_argument("target", help="NAME.safetensors: minitf's; NAME.bin or a folder: the release's")
    return parser


# ---------------------------------------------------------------------------------------------- generate


def generate(options):
    """Load, grow if asked to, print what the model is, and continue the prompt."""
    top_k = options.top_k
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}: it must be at least 0")
    if options.tokens < 0 or not 0 <= options.temperature < np.inf or (top_k is not None and top_k < 1):
        raise ValueError("--tokens and --temperature must be at least 0 and finite, and --top-k at least 1")
    params, config, tokenizer, _ = _load(options.weights, options)
    if tokenizer is None:
        raise ValueError(
            f"there is no tokenizer for {options.weights}: put the release's tokenizer.json beside it, or name one "
            "with --tokenizer (a checkpoint of minitf holds its own where it was saved with extra)"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {config.vocab_size}: they do not belong "
            "together"
        )
    ids = _encode(tokenizer, options.prompt.replace("\\n", "\n"))
    params = to_device(params, options.device)
    print(_describe(options.weights, params, config))
    if options.grow is not None:
        params, config = _grow(params, config, ids, options)
    new = []
    steps = generate_steps(params, ids, options.tokens, config, options.temperature, top_k, options.seed)
    with progress(steps, "generating", total=options.tokens, unit="token") as bar:
        new.extend(int(token) for token in bar)
    # the release pads its vocabulary: ids that the tokenizer does not know have no text
    known = [i for i in [*ids.tolist(), *new] if i < tokenizer.vocab_size]
    print(f"\n{tokenizer.decode(np.array(known))}")


def _grow(params, config, ids, options):
    """The grown model, after a line on what it did to the logits of the prompt."""
    if not isinstance(config, TokenformerConfig):
        raise ValueError("--grow appends parameter tokens, and this model is a Transformer: it has none")
    if options.grow < 1:
        raise ValueError(f"--grow is {options.grow}: append at least one parameter token")
    if options.grow_value == "halved" and options.grow_key != "copy":
        raise ValueError("--grow-value halved shares values out among copies: use it with --grow-key copy")
    more = {f"{part}_tokens": config.tokens(part) + options.grow for part in ("attention", "ffn")}
    if config.proj_tokens is not None:
        more["proj_tokens"] = config.proj_tokens + options.grow
    choice = {"key": options.grow_key, "value": options.grow_value, "tau": options.grow_tau}
    window = array_module(params["embedding"]["weight"]).asarray(ids[-config.context :])
    before = to_host(forward(params, window, config)[0])
    params, config = growth.grow(params, config, **more, **choice, seed=options.seed)
    change = np.abs(to_host(forward(params, window, config)[0]) - before).max()
    print(_describe(f"grown by {options.grow} parameter tokens per layer", params, config))
    print(f"logits of the prompt moved by at most {change:.2g}, they reach {np.abs(before).max():.2g}")
    return params, config


def _describe(name, params, config):
    n_bytes = sum(array.nbytes for _, array in tree_items(params))
    dtype = params["embedding"]["weight"].dtype
    kind = "Tokenformer" if isinstance(config, TokenformerConfig) else "Transformer"
    count = cost.count_parameters(config)
    return (
        f"{name}: {kind}, {count:,} parameters, {n_bytes / 1e6:,.1f} MB of memory ({dtype}), "
        f"{config.n_layers} layers of width {config.d_model}, {config.n_heads} heads, context {config.context}"
    )


def _encode(tokenizer, text):
    if not text:
        raise ValueError("--prompt is empty: begin the text with at least one character")
    try:
        return np.asarray(tokenizer.encode(text))
    except ValueError:
        raise
    except Exception as error:  # tokenizers raises no narrower one
        raise ValueError(f"the tokenizer has no tokens for the prompt: {error}") from error


# ----------------------------------------------------------------------------------------------- convert


def convert(options):
    """Read either format, write the other; optimizer states have no place in the release's and are left out."""
    params, config, tokenizer, extra = _load(options.source, options)
    print(_describe(options.source, params, config))
    target = Path(options.target)
    if target.suffix == ".safetensors":
        if tokenizer is not None:
            extra = extra | {"tokenizer": tokenizer.to_json()}
        checkpoint.save(target, params, config, extra=extra or None)
    elif target.is_dir() or not target.suffix:
        to_official(params, config)  # or its error, before there is a folder
        target.mkdir(exist_ok=True)
        checkpoint.save_official(target, params, config)
        if tokenizer is not None:
            checkpoint._write(target / "tokenizer.json", _tokenizer_file(tokenizer).encode())
    elif target.suffix in (".bin", ".pt", ".pth"):
        checkpoint.save_official(target, params, config)
    else:
        raise ValueError(
            f"the target is {target}: name a .safetensors file (minitf), or a .bin file or a folder (the release)"
        )
    print(f"written: {target}")


def _tokenizer_file(tokenizer):
    """What the package tokenizers reads: a tokenizer of characters becomes one of words of one character."""
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.tokenizer.to_str(pretty=True)
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    # there is no unknown word: a character that the model does not have is an error
    words = models.WordLevel({c: i for i, c in enumerate(tokenizer.characters)}, unk_token="unknown")
    words = Tokenizer(words)
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    words.decoder = decoders.Fuse()
    return words.to_str(pretty=True)


# ----------------------------------------------------------------------------------------------- loading


def _load(path, options):
    """A Model of a file or folder in either format."""
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            is_ours = file.read(9)[8:] == b"{"  # where the header of a safetensors file begins
    else:
        path, is_ours = weights_file(path), False
    if not is_ours:
        params, config = checkpoint.load_official(path, options.heads, options.rotary, options.context)
        return Model(params, config, _tokenizer(options.tokenizer, path.with_name("tokenizer.json")), {})
    for name in ("heads", "rotary", "context"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} is for the release's weights: {path} says itself what it holds")
    params, config, _, extra = checkpoint.load_training(path)
    extra = extra if isinstance(extra, dict) else {}
    extra.pop("training", None)  # is of no use without the state of the optimizer
    if options.tokenizer is None and isinstance(extra.get("tokenizer"), str):
        kind = next(
            (kind for name, kind in TOKENIZERS.items() if f'"{name}"' in extra["tokenizer"][:40]), None
        )
        if kind is None:
            raise ValueError(f"{path} holds a tokenizer of another kind than {' or '.join(TOKENIZERS)}")
        return Model(params, config, kind.from_json(extra["tokenizer"]), extra)
    return Model(params, config, _tokenizer(options.tokenizer, None), extra)


def _tokenizer(named, beside):
    """The tokenizer.json that was named, or the one beside the weights; None where there is none."""
    path = Path(named) if named is not None else beside
    if path is None or (named is None and not path.is_file()):
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no tokenizer {path}")
    from tokenizers import Tokenizer

    try:
        return BPETokenizer(Tokenizer.from_file(str(path)))
    except Exception as error:  # tokenizers raises no narrower one
        raise ValueError(f"{path} is no tokenizer that the package tokenizers reads: {error}") from error


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may lack characters that a model writes
            stream.reconfigure(errors="replace")
    sys.exit(main())
