"""The plan of the house: a module imports only from the floors below it, and heavy guests come only when asked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minitf

HOUSE = Path(minitf.__file__).parent
FLOORS = (  # lowest first; train stands above checkpoint because it saves, kernels above their formulas
    *("backend", "ops", "pattention", "top_k", "attention", "model", "activity", "growth", "transfer"),
    *("optim", "kernels", "data", "cost"),
    "nested",
    *("official", "checkpoint", "train", "vision", "merge", "laboratory", "gradcheck", "oracle", "plot"),
    *("checks", "__main__"),
)
ROOMS = sorted(path for path in HOUSE.rglob("*.py") if path.name != "__init__.py")


def floor(path):
    return FLOORS.index(path.relative_to(HOUSE).parts[0].removesuffix(".py"))


def imports(path, everywhere=True):
    """(module, depth of the dots) of every import; with everywhere=False only those outside of functions."""
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                [(node.module, node.level)]
                if node.module
                else [(alias.name, node.level) for alias in node.names]
            )
        nodes.extend(ast.iter_child_nodes(node))


def inside(path, everywhere=True):
    """Names of the modules of minitf that a module imports."""
    depth = len(path.relative_to(HOUSE).parts)
    for name, level in imports(path, everywhere):
        if level == depth:
            yield name.split(".")[0]
        elif name.split(".")[0] == "minitf":
            yield name.split(".")[1] if "." in name else "the whole of minitf"


def label(path):
    return path.relative_to(HOUSE).as_posix()


@pytest.mark.parametrize("path", ROOMS, ids=label)
def test_a_module_imports_only_from_the_floors_below(path):
    upwards = {name for name in inside(path) if name not in FLOORS[: floor(path)]}
    if "kernels" not in inside(path, everywhere=False):
        upwards.discard("kernels")  # a formula may look for its fused twin when it is called, not before
    assert not upwards


@pytest.mark.parametrize("path", ROOMS, ids=label)
def test_only_the_oracle_imports_torch_and_nobody_imports_the_oracle(path):
    assert ("torch" in {name.split(".")[0] for name, _ in imports(path)}) == (path.name == "oracle.py")
    assert "oracle" not in inside(path)


@pytest.mark.parametrize("path", ROOMS, ids=label)
def test_nobody_imports_cupy_before_it_is_asked_for(path):
    assert not {name.split(".")[0] for name, _ in imports(path, everywhere=False)} & {"cupy", "cupyx"}


def test_importing_minitf_loads_neither_torch_nor_cupy_nor_matplotlib():
    code = "import sys, minitf; print([m for m in ('torch', 'cupy', 'matplotlib', 'IPython') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=HOUSE.parent, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_everything_the_package_exports_exists_and_the_contracts_names_are_there():
    names = """
        theta_forward theta_backward pattention_forward pattention_backward TokenformerConfig TransformerConfig
        init_params forward backward loss_and_grads generate grow anneal_tau net2net_widen grow_state adamw_init
        adamw_step clip_by_global_norm warmup_cosine count_parameters forward_flops training_flops tree_map to_device
        to_host rotary_forward rotary_backward causal_attention_forward causal_attention_backward
    """.split()  # noqa: SIM905
    names += [
        f"{op}_{way}"
        for op in ("linear", "gelu", "layer_norm", "embedding", "cross_entropy")
        for way in ("forward", "backward")
    ]
    assert not [name for name in names if not callable(getattr(minitf, name, None))]
    modules = (
        "pattention",
        "ops",
        "attention",
        "model",
        "growth",
        "optim",
        "cost",
        "checkpoint",
        "data",
        "train",
    )
    assert not [name for name in modules if not hasattr(minitf, name)]
