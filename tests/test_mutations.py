"""Does the suite notice a wrong gradient? Break every backward function in every small way, and look.

A mutant is one backward function with one change: a sign flipped, one term of a sum or one factor of a product
dropped, an assignment left out, two returned gradients swapped. Mutants are made from the source, so a new
backward function is covered the day it is written. The judge is `helpers.first_wrong_gradient`: finite
differences along one random direction of every pair and every model, without torch.
"""

import ast
import copy
import inspect

import helpers
import pytest

from minitf import attention, merge, model, nested, ops, pattention, top_k, transfer, vision

MODULES = (ops, pattention, top_k, attention, model, nested, transfer, vision, merge)

# Mutants whose gradients are right: nobody could notice these here. With the reason.
RIGHT_ANYWAY = {
    # GeLU's forward is changed and its derivative with it; test_ops sees that the values are wrong
    "gelu_forward: drop right factor: 2 / math.pi -> 2",
    "gelu_forward: drop left term: 1 + tanh -> tanh",
    # it keeps huge inputs from overflowing; test_ops has such inputs
    "normal_cdf_pdf: leave out: x = xp.clip(x, -40, 40) -> pass",
}


def functions():
    """Every backward function, and the two forward functions that compute a derivative for the backward."""
    for module in MODULES:
        for name, function in vars(module).items():
            defined_here = inspect.isfunction(function) and function.__module__ == module.__name__
            if defined_here and (
                name.endswith("_backward") or name in ("backward", "gelu_forward", "normal_cdf_pdf")
            ):
                yield module, name


# --------------------------------------------------------------------------------- one change at a time


def replacements(node):
    """(what was done, the node that takes its place) for every small change of one expression or statement."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield "flip sign", ast.BinOp(node.left, opposite(node.op), node.right)
        yield "drop right term", node.left
        yield "drop left term", node.right
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        yield "drop right factor", node.left
        if isinstance(node.op, ast.Mult):
            yield "drop left factor", node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not is_number(node.operand):
        yield "flip sign", node.operand
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("_backward"):
        yield "skip step", node.args[0]
    elif isinstance(node, ast.Attribute) and node.attr == "add":  # np.add.at
        yield "flip sign", ast.Attribute(node.value, "subtract", ast.Load())
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and is_arithmetic(node.value):
        yield "leave out", ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield "leave out", ast.Pass()
        if isinstance(node.op, ast.Add | ast.Sub):
            yield "flip sign", ast.AugAssign(node.target, opposite(node.op), node.value)
    elif isinstance(node, ast.Assign) and assigns_again(node):
        yield "leave out", ast.Pass()
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        for swapped in neighbours_swapped(node.elts):
            yield "swap", ast.Tuple(swapped, ast.Load())
    elif isinstance(node, ast.Dict):
        for swapped in neighbours_swapped(node.values):
            yield "swap", ast.Dict(node.keys, swapped)


def opposite(sign):
    return ast.Sub() if isinstance(sign, ast.Add) else ast.Add()


def neighbours_swapped(items):
    for i in range(len(items) - 1):
        yield [*items[:i], items[i + 1], items[i], *items[i + 2 :]]


def is_number(node):
    return isinstance(node, ast.Constant)


def assigns_again(node):
    """x = ... x ...: without it, the old x is used."""
    names = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names <= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}


def is_arithmetic(node):
    """Shapes, slices, checks and messages are not formulas."""
    if isinstance(node, ast.Raise | ast.Slice | ast.Compare):
        return False
    called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
    is_check = called.startswith("check_") or called in ("array_module", "float_module")
    return not (is_check or (isinstance(node, ast.Attribute) and node.attr == "shape"))


def places(node):
    """(parent, field, index or None) of every node that may be replaced."""
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            if isinstance(child, ast.AST) and is_arithmetic(child):
                yield node, field, i if isinstance(value, list) else None
                yield from places(child)


def get(place):
    node, field, i = place
    return getattr(node, field) if i is None else getattr(node, field)[i]


def put(place, child):
    node, field, i = place
    if i is None:
        setattr(node, field, child)
    else:
        getattr(node, field)[i] = child


def mutants(module, name):
    """(description, broken function) for every small change of a function."""
    tree = ast.parse(inspect.getsource(getattr(module, name)))
    for place in list(places(tree.body[0])):
        original = get(place)
        for change, replacement in replacements(original):
            if ast.unparse(replacement) == ast.unparse(original):
                continue
            put(place, copy.deepcopy(replacement))
            code = compile(ast.fix_missing_locations(copy.deepcopy(tree)), f"<mutant of {name}>", "exec")
            namespace = dict(vars(module))
            exec(code, namespace)
            description = f"{name}: {change}: {ast.unparse(original)} -> {ast.unparse(replacement)}"
            yield description, rebound(namespace[name], module)
            put(place, original)


def rebound(function, module):
    """The function with the module's own globals, so that it sees what a test replaces there."""
    return type(function)(
        function.__code__, vars(module), function.__name__, function.__defaults__, function.__closure__
    )


# -------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize(
    ("module", "name"), list(functions()), ids=lambda value: getattr(value, "__name__", value)
)
def test_every_broken_backward_is_noticed(module, name, monkeypatch):
    original, survivors = getattr(module, name), []
    for description, broken in mutants(module, name):
        with monkeypatch.context() as patch:
            for user in MODULES:  # everyone who imported the function gets the broken one
                if vars(user).get(name) is original:
                    patch.setattr(user, name, broken)
            if helpers.first_wrong_gradient() is None:
                survivors.append(description)
    unexpected = sorted(set(survivors) - RIGHT_ANYWAY)
    assert not unexpected, "nobody noticed:\n" + "\n".join(unexpected)


def test_there_are_mutants_of_every_function_and_the_list_of_exceptions_is_not_stale():
    found = {name: [text for text, _ in mutants(module, name)] for module, name in functions()}
    assert not [name for name, texts in found.items() if not texts]
    assert sum(map(len, found.values())) > 150
    assert not RIGHT_ANYWAY - {text for texts in found.values() for text in texts}


def test_an_unchanged_copy_of_a_function_passes_as_right(monkeypatch):
    """So that a mutant fails for its change, not for having been recompiled."""
    code = compile(inspect.getsource(ops.softmax_backward), "<copy>", "exec")
    namespace = dict(vars(ops))
    exec(code, namespace)
    monkeypatch.setattr(ops, "softmax_backward", rebound(namespace["softmax_backward"], ops))
    assert helpers.first_wrong_gradient() is None
