"""What needs a real GPU: `make test-gpu`, or pytest -m gpu; skipped, and said so, where there is none.

The tests of the twins are those of test_cuda_kernels.py, on CuPy instead of its stand-in: `cupy` below is the real
one. Added is what a stand-in cannot show: that the host waits for nothing, TF32, and training as a user starts it.
MINITF_REQUIRE_GPU=1 turns the skip into failures.
"""

import os
import warnings

import helpers
import numpy as np
import pytest
import test_cuda_kernels
from test_cuda_kernels import tree_error, wired  # noqa: F401  # wired is a fixture

from minitf import backend, growth, model, optim
from minitf import train as training
from minitf.kernels import Replayed, cuda


def missing():
    """Why there is no GPU to test on; empty where there is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cupy
    except ImportError:
        return "no GPU: CuPy is not installed"
    return "" if cupy.is_available() else "no GPU: CuPy finds no NVIDIA GPU, or no driver"


MISSING = missing()
if MISSING and os.environ.get("MINITF_REQUIRE_GPU") != "1":
    pytest.skip(MISSING, allow_module_level=True)
pytestmark = pytest.mark.gpu


@pytest.fixture
def cupy():
    assert not MISSING, MISSING
    import cupy

    return cupy


# the same tests, on the device
for _name in (
    "test_theta_equals_its_formula",
    "test_theta_of_rows_of_zeros_huge_rows_and_tiny_rows",
    "test_theta_of_rows_longer_than_the_shared_memory_equals_its_formula",
    "test_layers_equal_their_formulas",
    "test_gelu_equals_its_formula",
    "test_layer_norm_equals_its_formula",
    "test_layer_norm_adds_up_many_rows",
    "test_softmax_equals_its_formula",
    "test_embedding_equals_its_formula",
    "test_cross_entropy_equals_its_formula",
    "test_cross_entropy_takes_a_number_and_many_tokens",
    "test_cross_entropy_of_nothing_or_of_ids_beyond_the_vocabulary_is_nan",
    "test_causal_attention_equals_its_formula",
    "test_causal_attention_continues_from_its_past",
    "test_a_causal_row_may_be_longer_than_a_warp_likes",
    "test_adamw_and_clipping_equal_their_formulas",
    "test_the_norm_adds_up_more_chunks_than_a_block_has_threads",
    "test_clipping_does_not_hide_a_nan",
    "test_a_twin_hands_back_what_it_cannot_do",
    "test_arrays_that_are_not_contiguous_are_still_right",
    "test_caches_show_what_lessons_look_at",
    "test_training_on_the_kernels_equals_training_on_the_formulas",
    "test_growth_generation_and_checkpoints_take_arrays_on_the_device",
):
    globals()[_name] = getattr(test_cuda_kernels, _name)


def test_large_arrays_equal_the_formula(cupy):
    """More rows, blocks and tokens than the stand-in could run in a test's time."""
    draw = test_cuda_kernels.draw
    for kind in cuda.KINDS:
        test_cuda_kernels.check_pair(cupy, "theta", np.float32, {"scores": draw(3000, 2048)}, kind=kind)
    ids = np.random.default_rng(0).integers(0, 5000, 8192)
    test_cuda_kernels.check_pair(cupy, "embedding", np.float32, {"weight": draw(5000, 384)}, {"ids": ids})
    constants = {"targets": ids}
    test_cuda_kernels.check_pair(cupy, "cross_entropy", np.float32, {"logits": draw(8192, 5000)}, constants)
    three = {name: draw(4, 512, 128, seed=seed) for seed, name in enumerate(("query", "key", "value"))}
    options = {"n_heads": 4, "rotary_fraction": 0.25}
    test_cuda_kernels.check_pair(cupy, "causal_attention", np.float32, three, **options)
    weights = {"weight": draw(320, seed=1), "bias": draw(320, seed=2)}
    test_cuda_kernels.check_pair(cupy, "layer_norm", np.float32, {"x": draw(200_000, 320), **weights})


SPIN = """
extern "C" __global__ void spin(long long cycles)
{
    for (long long start = clock64(); clock64() - start < cycles;) ;
}
"""


def test_a_training_step_does_not_wait_for_the_device(cupy, wired):  # noqa: F811
    """The device is kept busy for half a second; the host must be through with a whole step before that is over.

    One layer: the host may be about 1,000 launches ahead, then the driver itself makes it wait.
    """
    config = helpers.tokenformer(n_layers=1)
    params = backend.to_device(helpers.random_params(config, dtype=np.float32), "cuda")
    state = optim.adamw_init(params)
    ids, targets, mask = (cupy.asarray(a) for a in helpers.random_batch(config))

    def step(params, state):
        _, grads = model.loss_and_grads(params, ids, targets, config, mask)
        grads, _ = optim.clip_by_global_norm(grads, 1.0)
        return optim.adamw_step(params, grads, state, lr=1e-3)

    for _ in range(3):  # compile, and let the memory pool grow
        params, state = step(params, state)
    cupy.cuda.Device().synchronize()
    spin = cupy.RawModule(code=SPIN).get_function("spin")
    spin((1,), (1,), (np.int64(1),))
    spin((1,), (1,), (np.int64(10**9),))
    busy = cupy.cuda.Event()
    busy.record()
    step(params, state)
    assert not busy.done, "something in the step made the host wait"
    cupy.cuda.Device().synchronize()


def test_results_repeat_to_the_last_bit(cupy, wired):  # noqa: F811
    config = helpers.tokenformer()
    batches = [helpers.random_batch(config, seed) for seed in range(3)]

    def run():
        params = helpers.random_params(config, dtype=np.float32)
        return test_cuda_kernels.train(params, config, batches, lambda tree: backend.to_device(tree, "cuda"))[
            0
        ]

    first, second = backend.to_host(run()), backend.to_host(run())
    assert tree_error(first, second)[0] == 0


@pytest.mark.parametrize("name", helpers.CONFIGS)
def test_a_replayed_step_equals_the_step(cupy, name):
    config = helpers.CONFIGS[name]
    params = backend.to_device(helpers.random_params(config, dtype=np.float32), "cuda")
    again = Replayed(model.loss_and_grads)
    losses = []
    for seed in range(6):
        ids, targets, mask = (cupy.asarray(a) for a in helpers.random_batch(config, seed))
        loss, grads = again(params, ids, targets, config, mask)
        expected_loss, expected = model.loss_and_grads(params, ids, targets, config, mask)
        assert tree_error(backend.to_host(grads), backend.to_host(expected))[0] == 0
        losses.append((loss, expected_loss))
        params["embedding"]["weight"] *= 1.1  # where it is, as AdamW does
    waits = getattr(config, "ffn_top_k", None) is not None  # for the tokens that were chosen
    assert (again.recording.graph is None) == waits
    assert [float(got) for got, _ in losses] == [float(expected) for _, expected in losses]


def test_training_in_float32_is_replayed_and_equals_that_on_the_cpu(cupy, monkeypatch):
    config = helpers.tokenformer()
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 400)
    params = helpers.random_params(config, dtype=np.float32)
    made = []

    class Watched(Replayed):
        def __init__(self, function):
            super().__init__(function)
            made.append(self)

    monkeypatch.setattr(training, "Replayed", Watched)
    grown, larger = growth.grow(params, config, ffn_tokens=config.ffn_tokens + 4, tau="hold")
    for before, shape, share in ((params, config, 0.0), (grown, larger, 0.5)):
        settings = training.TrainConfig(
            steps=12,
            batch_size=4,
            eval_every=4,
            eval_windows=4,
            anneal_share=share,  # no step is as the last then
        )
        expected = training.train_model(before, shape, ids[:300], settings, ids[300:])
        made.clear()
        got = training.train_model(backend.to_device(before, "cuda"), shape, ids[:300], settings, ids[300:])
        assert made and all(replayed.recording.graph is not None for replayed in made)
        for here, there in zip(got.history, expected.history, strict=True):
            assert here == pytest.approx(there, rel=1e-4)


def test_a_function_that_waits_for_the_device_is_called_as_it_is(cupy):
    waits = Replayed(lambda tree: tree["x"] * float(tree["x"].sum()))
    tree = {"x": cupy.ones(3, np.float32)}
    for _ in range(4):
        assert waits(tree).get().tolist() == [3, 3, 3]
    assert waits.recording.graph is None


@pytest.mark.parametrize("shape", [(512, 512), (4, 256, 256)])
def test_tf32_rounds_inside_and_nowhere_else(cupy, shape):
    if int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs an Ampere or newer GPU")
    a, b = (np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in (0, 1))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    a, b = cupy.asarray(a), cupy.asarray(b)
    before = a @ b
    with cuda.tf32():
        rounded = a @ b
    after = a @ b
    assert helpers.relative_error(before.get(), exact) < 1e-5
    assert 1e-5 < helpers.relative_error(rounded.get(), exact) < 1e-2
    assert helpers.relative_error(after.get(), before.get()) == 0


def test_a_run_of_train_model_equals_that_on_the_cpu(cupy, wired, tmp_path):  # noqa: F811
    config = helpers.tokenformer()
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 400)
    params = helpers.random_params(config)
    settings = training.TrainConfig(steps=6, batch_size=4, eval_every=2, eval_windows=4)
    expected = training.train_model(params, config, ids[:300], settings, ids[300:])
    on_gpu = backend.to_device(params, "cuda")
    path = tmp_path / "run.safetensors"
    got = training.train_model(on_gpu, config, ids[:300], settings, ids[300:], checkpoint_path=path)
    assert isinstance(got.params["norm"]["weight"], cupy.ndarray)
    assert tree_error(backend.to_host(got.params), expected.params)[0] < 1e-9
    for here, there in zip(got.history, expected.history, strict=True):
        assert here == pytest.approx(there)
    resumed = training.train_model(
        on_gpu, config, ids[:300], settings, ids[300:], checkpoint_path=path, resume=True
    )
    assert tree_error(backend.to_host(resumed.params), backend.to_host(got.params))[0] == 0
