"""The experiment on specialists: a small version runs once, controls and directions show, nonsense is refused."""

import json

import numpy as np
import pytest
import small_experiment

from minitf import count_layer_parameters
from minitf.laboratory.command import main
from minitf.laboratory.run import Run


@pytest.fixture(scope="module")
def script():
    return small_experiment.load("specialists")


@pytest.fixture(scope="module")
def small(script, tmp_path_factory):
    """The figure's JSON of a plan that runs in seconds, what ran, and how often the second call ran something."""
    folder, counts = tmp_path_factory.mktemp("specialists"), []
    plan = script.Plan(steps=30, seeds=(0,), tokens=(8, 16), d_token=32, d_transformer=32)
    plan = script.replace(plan, windows=24, knock_windows=2, every=16)
    patch = pytest.MonkeyPatch()
    patch.setattr("minitf.laboratory.stage.FINAL_WINDOWS", 16)
    patch.setattr("minitf.laboratory.stage.BIRTH_WINDOWS", 4)
    for cls in (script.Look, script.Stage):
        train = cls.train
        patch.setattr(cls, "train", lambda run, parent, train=train: counts.append(run) or train(run, parent))
    arguments = ["--store", str(folder / "store"), "--out", str(folder / "specialists")]
    measured = []
    for _ in range(2):
        main(
            *(script.STEM, script.__doc__, {"full": plan}, script.run, script.draw, arguments),
            claims=script.CLAIMS,
            results=script.Results,
        )
        measured.append((folder / "specialists.json").read_bytes())
    patch.undo()
    assert (folder / "specialists.png").stat().st_size < 200_000
    return [json.loads(text) for text in measured], counts


def test_a_small_version_runs_and_nothing_runs_twice(small):
    (first, again), ran = small
    assert first == again
    assert len(ran) == len({run.key() for run in ran}) == 5 + 1 + 5  # stages, the base and looks
    assert all(isinstance(run, Run) for run in ran)


def test_the_measure_finds_characters_and_nothing_in_shuffled_ones(script, small):
    results = script.Results(small[0][0])
    for arm in ("Tokenformer", "Transformer", script.GROWN, script.RELEASE):
        for field in ("current", "next", "before"):
            found, floor = (results(arm, *path, field)["0"] for path in (("units", "all"), ("shuffled",)))
            assert 1 > found > floor >= 0
        assert results(arm, "units", "all", "current")["0"] > 3 * results(arm, "shuffled", "current")["0"]
        assert sum(results(arm, "units", "all", "kinds")["0"]) == pytest.approx(1, abs=1e-4)


def test_new_tokens_of_a_short_stage_are_missed_less_than_old_ones(script, small):
    """The direction of the full run that is large enough to show in 30 steps."""
    silenced = script.Results(small[0][0])(script.GROWN, "silenced")["0"]
    assert abs(silenced["new"]["value"]) < 0.5 * silenced["old"]["value"]


def test_for_neurons_it_does_not_matter_at_which_end_they_are_silenced(script, small):
    results = script.Results(small[0][0])
    assert results("Transformer", "ends", "difference")["0"] < 0.01
    assert (
        results("Tokenformer", "ends", "difference")["0"] > results("Transformer", "ends", "difference")["0"]
    )


def test_the_rivals_have_as_many_parameters_and_units(script):
    looks = script.Plan().looks(0)
    large, rival = (looks[name].parent.config for name in ("Tokenformer", "Transformer"))
    assert count_layer_parameters(large) == count_layer_parameters(rival)
    assert large.ffn_tokens == rival.d_ff == 2 * looks[script.GROWN].old


def test_kinds_of_characters(script):
    vocabulary = script.tokenizer()
    found = dict(zip(" \nAaz,", script.kinds()[vocabulary.encode(" \nAaz,")], strict=True))
    assert [script.KINDS[i] for i in found.values()] == list(script.KINDS)
    assert len(script.kinds()) == vocabulary.vocab_size


def test_units_that_fire_for_one_character_are_seen_as_such(script):
    text = script.Text(8, 64)
    vocabulary = script.tokenizer()
    (comma,) = vocabulary.encode(",")
    share = float((text.ids == comma).mean())
    noise = 0.01 * np.random.default_rng(0).random((text.ids.size, 1))
    found = text.watch((text.ids.reshape(-1, 1) == comma) + noise, share)
    assert found["current"][0] > 0.9 and found["next"][0] < 0.9
    assert script.KINDS[found["kind"][0]] == "other"
    assert found["surprise"][0] == pytest.approx(-np.log(share), rel=0.1)
    later = text.watch(text.place[:, None] + noise, 0.1)
    assert later["place"][0] > 58


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": (64, 32)}, "a larger one"),
        ({"tokens": (64,)}, "a larger one"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"steps": 0}, "at least 1"),
        ({"share": 1.0}, "below 1"),
        ({"windows": 0}, "at least 1"),
        ({"every": 1000}, "no unit"),
        ({"d_token": 50}, "do not divide"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(script, change, message):
    with pytest.raises(ValueError, match=message):
        script.Plan(**change)
