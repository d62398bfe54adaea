"""Memory and speed of the released 150M model, with random weights in the released layout.

    python tests/measure_official.py [--folder /tmp] [--tokens 32] [--threads 1]

Writes a pytorch_model.bin of 608 MB, opens it in processes of their own and prints the highest memory of each above
what it had before loading (VmHWM of /proc/self/status, which starts anew with a program; ru_maxrss would start with
the memory of the process that started it), then tokens per second of minitf and of torch, with a KV cache both, in
turn in one process. pytest does not collect this.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

CHILD = "--child"


def peak(name="VmHWM"):
    """Highest memory of this process so far in bytes; "VmRSS" is the memory of now."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def write(path):
    import numpy as np

    from minitf import TokenformerConfig, init_params, official
    from minitf.checkpoint import save_official

    config = TokenformerConfig(50304, 2048, 12, 768, 12, attention_tokens=768, ffn_tokens=3072)
    params = init_params(config)
    save_official(path, params, config)
    state = official.to_official(params, config)
    return sum(array.size for array in state.values()), np.__version__


def to_other_formats(path):
    import torch

    state = torch.load(path, weights_only=True, mmap=True)
    torch.save(state, path.with_name("stream.bin"), _use_new_zipfile_serialization=False)
    torch.save({name: tensor.half() for name, tensor in state.items()}, path.with_name("half.bin"))


def load(path):
    """Load, touch every number, then take one step: the peaks above the memory before."""
    import numpy as np

    from minitf import checkpoint, forward
    from minitf.backend import tree_items

    before = peak("VmRSS")
    start = time.perf_counter()
    params, config = checkpoint.load_official(path, 12)
    seconds = time.perf_counter() - start
    opened = peak() - before
    for _, array in tree_items(params):
        array.max()
    touched = peak() - before
    forward(params, np.arange(32), config)
    return {"seconds": seconds, "opened": opened, "touched": touched, "forward": peak() - before}


def speed(path, tokens, threads):
    """Tokens per second, the better of three turns each; greedy, and the ids must agree."""
    import numpy as np
    import torch

    from minitf import checkpoint, oracle
    from minitf.__main__ import sample

    torch.set_num_threads(threads)
    params, config = checkpoint.load_official(path, 12)
    tensors = oracle.to_torch(params, requires_grad=False)
    prompt = np.random.default_rng(0).integers(0, 50254, 32)
    found = {"minitf": [], "torch": []}
    for _ in range(3):
        for name, run in (
            ("minitf", lambda: sample(params, prompt, tokens, config, temperature=0)),
            ("torch", lambda: torch_sample(tensors, prompt, tokens, config)),
        ):
            steps = run()
            ids = [next(steps)]  # the prompt
            start = time.perf_counter()
            ids += steps
            found[name].append(((tokens - 1) / (time.perf_counter() - start), ids))
    same = found["minitf"][0][1] == found["torch"][0][1]
    return {name: max(rate for rate, _ in runs) for name, runs in found.items()} | {"same_ids": same}


def torch_sample(params, ids, n_new, config):
    """The likeliest tokens, one at a time, in torch with a KV cache, of the oracle's parts."""
    import torch
    import torch.nn.functional as F

    from minitf import oracle

    def split(x):
        return x.unflatten(-1, (config.n_heads, -1)).transpose(-2, -3)

    past = [None] * config.n_layers
    window = torch.tensor(ids)
    done = 0
    with torch.inference_mode():
        for _ in range(n_new):
            x = F.embedding(window, params["embedding"]["weight"])
            for i in range(config.n_layers):
                block = params[f"block_{i}"]
                attention = block["attention"]
                h = F.layer_norm(x, x.shape[-1:])
                q, k, v = (
                    split(oracle.pattention(h, **attention[name])) for name in ("query", "key", "value")
                )
                q, k = (oracle.rotary(part, config.rotary_fraction, done) for part in (q, k))
                if past[i] is not None:
                    k, v = (torch.cat(pair, dim=-2) for pair in zip(past[i], (k, v), strict=True))
                past[i] = k, v
                h = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=len(window) > 1)[0]
                x = x + oracle.pattention(h.transpose(-2, -3).flatten(-2), **attention["proj"])
                x = x + oracle.pattention(F.layer_norm(x, x.shape[-1:]), **block["ffn"])
            x = F.layer_norm(x[-1], x.shape[-1:], **params["norm"])
            done += len(window)
            window = (params["embedding"]["weight"] @ x).argmax()[None]
            yield int(window)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp") / f"minitf_official_{os.getpid()}")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(CHILD, choices=("load", "speed", "write", "formats"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work = {
            "write": lambda: write(options.file),
            "formats": lambda: to_other_formats(options.file),
            "load": lambda: load(options.file),
            "speed": lambda: speed(options.file, options.tokens, options.threads),
        }
        print(json.dumps(work[options.child]()))
        return

    environment = os.environ | {
        f"{name}_NUM_THREADS": str(options.threads) for name in ("OPENBLAS", "OMP", "MKL")
    }

    def child(name, file):
        command = [sys.executable, __file__, CHILD, name, "--file", str(file)]
        command += ["--tokens", str(options.tokens), "--threads", str(options.threads)]
        out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out.splitlines()[-1])

    options.folder.mkdir(exist_ok=True)
    path = options.folder / "pytorch_model.bin"
    try:
        parameters, _ = child("write", path)
        print(f"{parameters:,} parameters, {path.stat().st_size / 1e6:.1f} MB")
        child("formats", path)
        for label, file in (
            ("zip, float32", path),
            ("stream, float32", "stream.bin"),
            ("zip, float16", "half.bin"),
        ):
            file = options.folder / file
            size, got = file.stat().st_size, child("load", file)
            shares = ", ".join(f"{name} {got[name] / size:.3f}" for name in ("opened", "touched", "forward"))
            print(f"{label}: {size / 1e6:.1f} MB, loaded in {got['seconds']:.2f} s; peak / file: {shares}")
        rates = child("speed", path)
        assert all(map(math.isfinite, (rates["minitf"], rates["torch"])))
        print(
            f"{options.threads} thread(s), tokens per second: minitf {rates['minitf']:.2f}, "
            f"torch {rates['torch']:.2f}; the same ids: {rates['same_ids']}"
        )
    finally:
        for file in options.folder.glob("*.bin"):
            file.unlink()
        options.folder.rmdir()


if __name__ == "__main__":
    main()
