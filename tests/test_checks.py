"""The soft checks tell right from wrong, and say what is wrong; so do the hard ones.

For every exercise of every lesson: the untouched stub is not attempted, the solution in the third hint passes, and
every wrong formula of the spec, every answer in wrong_answers/ and every mutant of the solution is rejected in words.
"""

import ast
import copy
import re
import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_mutations as mutation

from minitf import checks
from minitf.checks import Exercise, check, grade
from minitf.checks.compare import Fault
from minitf.checks.core import examine

jupytext = pytest.importorskip("jupytext")

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "notebooks" / "src"
EXERCISES = dict(checks.exercises())
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


# ------------------------------------------------------------------------ the exercises, in their lessons


class Place(NamedTuple):
    """Where a lesson has an exercise."""

    lesson: Path
    card: str
    stub: str
    hints: dict  # {title: text}
    before: list  # the code cells above the stub

    @property
    def solution(self):
        return re.search(r"```python\n(.*?)```", self.hints["3: the solution"], re.S)[1]


def places():
    """{name: Place} of all cells with f = check("f", f)."""
    found = {}
    for lesson in sorted(SOURCES.rglob("*.py")):
        cells = jupytext.read(lesson).cells
        for i, cell in enumerate(cells):
            for name in re.findall(r'^(\w+) = check\("\1", \1\)$', cell.source, re.M):
                assert name not in found, f"{name} is checked twice"
                found[name] = find_place(name, lesson, cells, i)
    return found


def find_place(name, lesson, cells, at):
    """The card and the stub above the check, the hints below it."""
    stub = max(i for i in range(at + 1) if f"def {name}(" in cells[i].source and cells[i].cell_type == "code")
    card = next(cell.source for cell in reversed(cells[:stub]) if cell.cell_type == "markdown")
    hints = next(cell.source for cell in cells[at:] if cell.cell_type == "markdown")
    folded = dict(re.findall(r"<details><summary>Hint ([^<]+)</summary>(.*?)</details>", hints, re.S))
    before = [cell.source for cell in cells[:stub] if cell.cell_type == "code"]
    return Place(lesson, card, cells[stub].source, folded, before)


PLACES = places()


def bank(name):
    """The lesson's wrong answers: WRONG = {exercise: [(function, word)]}, RIGHT_ANYWAY = {changed line of a mutant}."""
    return runpy.run_path(TESTS / "wrong_answers" / f"lesson_{PLACES[name].lesson.stem[:2]}.py")


def world(place):
    """What a learner has when coming to the exercise: imports, functions and constants; earlier exercises solved."""
    names = {}
    for cell in place.before:
        for node in ast.parse(cell).body:
            if isinstance(node, DEFINITIONS) or is_constant(node):
                exec(compile(ast.Module([node], []), "<lesson>", "exec"), names)
        for name in re.findall(r'^(\w+) = check\("\1", \1\)$', cell, re.M):
            names[name] = EXERCISES[name].reference
    return names


def is_constant(node):
    """NAME = a literal."""
    try:
        return (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and [ast.literal_eval(node.value)]
        )
    except ValueError:
        return False


def define(name, code, place):
    """The function that the code defines, in the lesson's world."""
    names = world(place)
    exec(compile(code, "<answer>", "exec"), names)
    return names[name]


def verdict(name, function, capsys):
    """What check says, and whether the learner goes on with the own function."""
    back = check(name, function)
    text = capsys.readouterr().out
    assert (back is function) == text.startswith("✓"), text
    return text


each_exercise = pytest.mark.parametrize("name", sorted(EXERCISES))


def test_every_exercise_is_in_one_lesson_and_every_check_has_an_exercise():
    listed = [name for name, _ in checks.exercises()]
    assert sorted(listed) == sorted(PLACES)


@each_exercise
def test_the_card_tells_difficulty_importance_and_minutes_and_there_are_three_hints(name):
    title = rf"> \*\*(Exercise \d\d\.\d|Puzzle \d+): `{name}`\*\* · "
    facts = r"difficulty [●○]{5} · importance [●○]{5} · \d+ minutes; open the solution after \d+\n"
    assert re.search(title + facts, PLACES[name].card + "\n"), "see CONTRIBUTING.md"
    assert re.fullmatch(r"1: a nudge, 2: the (shapes|units), 3: the solution", ", ".join(PLACES[name].hints))


@each_exercise
def test_the_stub_counts_as_not_attempted(name, capsys):
    stub = define(name, PLACES[name].stub, PLACES[name])
    assert "not attempted" in verdict(name, stub, capsys)
    assert check(name, stub) is EXERCISES[name].reference


@each_exercise
def test_the_solution_in_the_third_hint_passes(name, capsys):
    assert verdict(name, define(name, PLACES[name].solution, PLACES[name]), capsys).startswith("✓")


@each_exercise
def test_a_mistake_of_the_spec_is_called_by_its_name(name, capsys):
    for message, wrong in EXERCISES[name].mistakes.items():
        text = verdict(name, lambda *arguments, wrong=wrong: wrong(*arguments), capsys)
        assert text.startswith("✗") and message in text, text


@each_exercise
def test_wrong_answers_are_rejected_with_a_word_that_names_the_mistake(name, capsys):
    answers = bank(name)["WRONG"][name]
    assert len(answers) >= 6
    for wrong, word in answers:
        text = verdict(name, wrong, capsys)
        assert text.startswith("✗") and word in text, f"{word!r} is not in {text}"


@each_exercise
def test_every_mutant_of_the_solution_is_rejected(name, capsys):
    right_anyway = bank(name).get("RIGHT_ANYWAY", set())
    survivors = {
        line
        for line, code in mutants_of(PLACES[name].solution)
        if verdict(name, define(name, code, PLACES[name]), capsys).startswith("✓")
    }
    assert not survivors - right_anyway, "nobody noticed:\n" + "\n".join(sorted(survivors - right_anyway))


def test_there_are_mutants_and_the_lists_of_exceptions_are_not_stale():
    mutants = {name: {line for line, _ in mutants_of(place.solution)} for name, place in PLACES.items()}
    assert sum(map(len, mutants.values())) > 5 * len(mutants)
    excepted = set().union(*(bank(name).get("RIGHT_ANYWAY", set()) for name in PLACES))
    assert not excepted - set().union(*mutants.values())


def mutants_of(source):
    """(the changed line, code) for every small change of the source."""
    tree = ast.parse(source)
    lines = ast.unparse(tree).splitlines()
    for spot in list(spots(tree)):
        original = mutation.get(spot)
        for _, replacement in [*mutation.replacements(original), *more_replacements(original)]:
            mutation.put(spot, copy.deepcopy(replacement))
            mutant = ast.unparse(ast.fix_missing_locations(tree))
            changed = " ".join(line.strip() for line in mutant.splitlines() if line not in lines)
            # to reshape, -2 is the same as -1; the line with `def` is given
            if changed and not re.search(r"reshape\(.*-2|^def ", changed):
                yield changed, mutant
            mutation.put(spot, original)


def spots(node):
    """(parent, field, index or None) of every node below."""
    for field, value in ast.iter_fields(node):
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield node, field, i if isinstance(value, list) else None
                yield from spots(child)


def more_replacements(node):
    """(what was done, the node in its place): what else goes wrong in a forward function."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "flip", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "add one", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield "drop the transpose", node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) and node.args:
        yield "skip the call", node.args[0]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult | ast.Pow):
        yield "drop right operand", node.left
        yield "drop left operand", node.right
        yield "swap", ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield "drop the index", node.value
    elif isinstance(node, ast.Compare):
        yield "negate", ast.UnaryOp(ast.Not(), node) if len(node.ops) > 1 else negated(node)


def negated(node):
    opposite = {
        ast.Lt: ast.GtE,
        ast.GtE: ast.Lt,
        ast.Gt: ast.LtE,
        ast.LtE: ast.Gt,
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
    }
    return ast.Compare(node.left, [opposite[type(node.ops[0])]()], node.comparators)


# ------------------------------------------------------------------------------------- any function at all


def hostile():
    right = EXERCISES["softmax"].reference

    def in_place(scores):
        out = right(scores)
        scores -= 1
        return out

    def chatty(scores):
        print("noise" * 10_000)
        return right(scores) + 1

    class Equal(np.ndarray):
        def __eq__(self, other):
            return True

        def tolist(self):
            return right(np.zeros(3)).tolist()

    return {
        "raises ZeroDivisionError": lambda scores: 1 / 0,
        "raises SystemExit": lambda scores: exit(),
        "raises RecursionError": lambda scores: hostile()["raises RecursionError"](scores),
        "a list, expected an array": lambda scores: right(scores).tolist(),
        "a tuple, expected an array": lambda scores: (right(scores), None),
        "a generator, expected an array": lambda scores: (each for each in scores),
        "a str, expected an array": lambda scores: "right",
        "an Equal, expected an array": lambda scores: right(scores).view(Equal),
        "an int, expected an array": lambda scores: 10**400,
        "wrong values": lambda scores: np.full(scores.shape, 10**400, object),
        "wrong values (nan or inf": lambda scores: right(scores) * np.nan,
        "wrong values (the sign is wrong)": lambda scores: -right(scores),
        "wrong values (2 times": lambda scores: 2 * right(scores),
        "object comes out": lambda scores: right(scores).astype(object),
        "float64 comes out": lambda scores: right(scores).astype(float),
        "changes its input scores": in_place,
        "wrong values ([0] is": chatty,
        "takes 0 positional arguments": lambda: 0,
        "shape (3, 4), expected (4, 3)": lambda scores: np.zeros(scores.shape[::-1]),
    }


@pytest.mark.parametrize("words", hostile())
def test_any_function_gets_one_line_and_stops_nothing(words, capsys):
    text = verdict("softmax", hostile()[words], capsys)
    first, second = text.splitlines()
    assert first.startswith("✗ softmax: ") and second == "  the lesson goes on with the reference"
    assert words in first or words.startswith("shape")


@pytest.mark.parametrize(
    "stub",
    [
        lambda scores: None,
        lambda scores: ...,
        lambda scores: ... * scores,
        lambda scores: (_ for _ in ()).throw(NotImplementedError),
        ...,
        None,
    ],
)
def test_what_was_not_written_is_not_attempted(stub, capsys):
    assert check("softmax", stub) is EXERCISES["softmax"].reference
    assert capsys.readouterr().out.startswith("○ softmax: not attempted")


def test_the_reference_is_never_reported_as_passed(capsys):
    reference = check("softmax", lambda scores: ...)
    capsys.readouterr()
    assert check("softmax", reference) is reference  # the check cell, run again without the learner's
    assert capsys.readouterr().out.startswith("○ softmax: this is the library's function")


def test_a_misspelled_name_gets_an_answer(capsys):
    assert check("sofmax", max) is max
    assert capsys.readouterr().out == "? there is no exercise 'sofmax': did you mean 'softmax'?\n"


# -------------------------------------------------------------------------------------------- other results


def layer(x, factor):
    return {"key": factor * x, "count": x.size, "name": "layer"}, x.sum()


LAYER = Exercise(
    layer,
    lambda rng: [(rng.standard_normal(shape), 2.0) for shape in ((3,), (2, 3))],
    outputs=("tree", "total"),
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, factor: layer(x, factor)[0], "returns a dict, expected 2: tree, total"),
        (lambda x, factor: (x, x.sum()), "tree: returns an array, expected a dict of key, count, name"),
        (
            lambda x, factor: ({"key": x}, 0),
            "tree: returns the names key, expected a dict of key, count, name",
        ),
        (lambda x, factor: (layer(x, factor)[0], x), "total: shape"),
        (lambda x, factor: (layer(x, factor)[0], 1), "total: right shape, wrong values"),
        (
            lambda x, factor: (layer(x, factor)[0] | {"key": x}, x.sum()),
            "tree.key: right shape, wrong values (0.5 times",
        ),
        (lambda x, factor: (layer(x, factor)[0] | {"count": x.size + 1e-9}, x.sum()), "tree.count: right"),
        (
            lambda x, factor: (layer(x, factor)[0] | {"name": "x"}, x.sum()),
            "tree.name: right shape, wrong values ('x')",
        ),
    ],
)
def test_a_fault_in_a_tree_is_found_and_named(answer, words):
    with pytest.raises(Fault, match=re.escape(words)):
        examine(LAYER, answer)
    assert examine(LAYER, lambda x, factor: layer(x, factor)) == 2


def test_where_more_than_one_answer_is_right_the_exercise_judges():
    def sums_to_ten(arguments, got):
        assert got.dtype.kind == "f", "got was no number"
        return None if got.sum() == 10 else "the entries must sum to 10"

    ten = Exercise(lambda n: np.array([10.0] + [0.0] * (n - 1)), lambda rng: [(2,), (5,)], accept=sums_to_ten)
    assert examine(ten, lambda n: np.full(n, 10.0 / n)) == 2
    with pytest.raises(Fault, match="must sum to 10"):
        examine(ten, lambda n: np.ones(n))
    with pytest.raises(Fault, match="got was no number"):
        examine(ten, lambda n: np.full(n, "ten"))


# ------------------------------------------------------------------------------------------------ hard mode


def unit(rows):
    return rows / np.sqrt((rows**2).sum(axis=-1, keepdims=True))


QUESTION = Exercise(
    unit,
    lambda rng: [(rng.standard_normal(shape),) for shape in ((3,), (2, 4))],
    {"is the square root missing?": lambda rows: rows / (rows**2).sum(axis=-1, keepdims=True)},
)
GRADES = (grade.shape, grade.values, grade.dtype, grade.inputs)


def earned(function):
    """Names of the properties that a function gets points for."""
    names = []
    for property in GRADES:
        try:
            property(function, QUESTION)
        except AssertionError:
            continue
        names.append(property.__name__)
    return names


def normalizes_in_place(rows):
    rows /= np.sqrt((rows**2).sum(axis=-1, keepdims=True))
    return rows


@pytest.mark.parametrize(
    ("answer", "properties"),
    [
        (lambda rows: unit(rows), ["shape", "values", "dtype", "inputs"]),
        (lambda rows: rows.copy(), ["shape", "dtype", "inputs"]),
        (lambda rows: unit(rows).astype(float), ["shape", "values", "inputs"]),
        (normalizes_in_place, ["shape", "values", "dtype"]),
        (lambda rows: unit(rows)[..., :2], []),
        (lambda rows: ..., []),
        (None, []),
    ],
)
def test_each_property_has_its_own_points(answer, properties):
    assert earned(answer) == properties


def test_a_hard_message_names_the_mistake_and_shows_no_right_number(monkeypatch):
    monkeypatch.setenv("MINITF_GRADE_SEED", "5")
    with pytest.raises(AssertionError, match="is the square root missing?"):
        grade.values(lambda rows: rows / (rows**2).sum(axis=-1, keepdims=True), QUESTION)
    with pytest.raises(AssertionError) as error:
        grade.values(lambda rows: np.cos(rows), QUESTION)
    assert str(error.value) == "right shape, wrong values"


def test_the_seed_of_grading_draws_other_inputs(monkeypatch):
    seen = []
    for seed in ("1", "2", "1"):
        monkeypatch.setenv("MINITF_GRADE_SEED", seed)
        grade.values(lambda rows: seen.append(rows.tolist()) or unit(rows), QUESTION)
    first, _, second, _, again, _ = seen
    assert first != second and first == again


def curve(x, w):
    return np.tanh(x @ w), (x, w)


def curve_backward(dout, cache):
    x, w = cache
    dz = dout * (1 - np.tanh(x @ w) ** 2)
    return dz @ w.T, x.T @ dz


def points(rng):
    yield rng.standard_normal((2, 3)), rng.standard_normal((3, 4))


def test_gradients_are_graded_by_central_differences():
    def no_slope(dout, cache):
        return dout @ cache[1].T, cache[0].T @ dout

    grade.gradients(curve_backward, curve, points)
    with pytest.raises(AssertionError, match="dx: .* is the slope of tanh missing?"):
        mistakes = {"is the slope of tanh missing?": no_slope}
        grade.gradients(no_slope, curve, points, ("dx", "dw"), mistakes)
    with pytest.raises(AssertionError, match=r"dw: right shape, wrong values \(2 times"):
        grade.gradients(
            lambda d, c: (curve_backward(d, c)[0], 2 * curve_backward(d, c)[1]), curve, points, ("dx", "dw")
        )
    with pytest.raises(AssertionError, match="returns an array, expected 2"):
        grade.gradients(lambda d, c: curve_backward(d, c)[0], curve, points)
    with pytest.raises(AssertionError, match="forward must run"):
        grade.gradients(curve_backward, lambda x, w: 1 / 0, points)


def test_replacing_what_the_checks_are_made_of_earns_nothing(monkeypatch):
    namespace = {"__name__": "__main__"}
    exec("def lie(*arguments, **more):\n    return True", namespace)
    monkeypatch.setattr(np, "allclose", namespace["lie"])
    with pytest.raises(AssertionError, match="the notebook replaces numpy.allclose"):
        grade.values(unit, QUESTION)
    monkeypatch.undo()
    monkeypatch.setattr(checks.compare, "same", namespace["lie"])
    with pytest.raises(AssertionError, match="the notebook replaces minitf.checks.compare.same"):
        grade.values(unit, QUESTION)
    monkeypatch.undo()
    grade.values(unit, QUESTION)
