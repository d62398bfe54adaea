"""Train the small Tokenformer that lesson 00 opens: 0.4 million parameters, Shakespeare, one character a token.

    python figures/shakespeare_model.py            trains it (about 15 minutes on two quiet cores), resumes after a stop
    python figures/shakespeare_model.py --redraw   draws the learning curve from shakespeare_model.json

Writes shakespeare_model.safetensors (the model and its tokenizer), .json (what was run and measured), .png and .svg.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minitf import (
    TokenformerConfig,
    TrainConfig,
    checkpoint,
    count_parameters,
    init_params,
    plot,
    train_model,
)
from minitf.data import CharTokenizer, load_shakespeare
from minitf.train import evaluate

STEM = Path(__file__).with_suffix("")
RUN = Path("build") / "shakespeare_model_training.safetensors"  # with the optimizer's moments, to resume from
ALT = (
    "Loss in nats per character against training steps for the small model of lesson 00: training loss and loss on "
    "the four held-out plays fall together, steeply at first, then slowly."
)


def run():
    text = {split: load_shakespeare(split) for split in ("train", "heldout", "scenes")}
    tokenizer = CharTokenizer.from_text(text["train"])
    ids = {split: tokenizer.encode(text[split]) for split in text}
    # tiny heads: with 16 channels a quarter would leave two frequencies, so half of each head rotates;
    # keys start wider than the release's 0.02, which learns slower at this size
    config = TokenformerConfig(
        vocab_size=tokenizer.vocab_size,
        context=128,
        n_layers=3,
        d_model=96,
        n_heads=6,
        attention_tokens=96,
        ffn_tokens=288,
        rotary_fraction=0.5,
        init_std=0.1,
    )
    settings = TrainConfig(steps=4000, batch_size=16, peak_lr=6e-3, eval_every=200, eval_windows=128)
    RUN.parent.mkdir(exist_ok=True)
    start = time.perf_counter()
    extra = {"tokenizer": tokenizer.to_json()}
    params, config, _, history = train_model(
        init_params(config),
        config,
        ids["train"],
        settings,
        ids["heldout"],
        None,
        RUN,
        200,
        resume=True,
        extra=extra,
    )
    seconds = time.perf_counter() - start
    checkpoint.save(STEM.with_suffix(".safetensors"), params, config, extra=extra)
    measured = {
        "command": "python figures/shakespeare_model.py",
        "config": asdict(config),
        "settings": asdict(settings),
        "parameters": count_parameters(config),
        "seconds_of_the_last_start": round(seconds, 1),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "machine": f"{platform.system()} {platform.machine()}",
        "nats_per_character": {
            split: round(evaluate(params, config, ids[split], 16, 512), 4)
            for split in ("train", "heldout", "scenes")
        },
        "history": history,
    }
    STEM.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def draw():
    measured = json.loads(STEM.with_suffix(".json").read_text(encoding="utf-8"))
    plot.style()
    fig, ax = plt.subplots()
    steps = [line["step"] for line in measured["history"]]
    for name, label in (("train_loss", "training plays"), ("heldout_loss", "four held-out plays")):
        ax.plot(steps, [line[name] for line in measured["history"]], label=label, markevery=2)
    ax.set_xlabel(
        f"training step ({measured['settings']['batch_size']} windows of {measured['config']['context']} characters)"
    )
    ax.set_ylabel("loss (nats per character)")
    ax.legend()
    plot.save(fig, STEM, ALT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redraw", action="store_true", help="only draw, from the stored measurements")
    if not parser.parse_args().redraw:
        run()
    draw()
