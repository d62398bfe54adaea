"""A function on the GPU, recorded once as a CUDA graph and from then on repeated with a single launch.

Python takes longer to start a kernel than a small model's kernels take to run. A graph holds the launches with
their addresses, so whatever it reads and writes has to stay where it is: the recorded function has a memory pool
of its own, its inputs are copied to where it read them first, and its results are overwritten by the next call.
"""

import contextlib

import numpy as np

from ..backend import array_module, tree_items
from . import cublas


class Replayed:
    """The same function, fit for being called again and again: on a GPU its second like call is recorded.

    function(tree, *args): the arrays of `tree`, a nested dict, are read where they are, so it pays if they stay
    there, as params do under `adamw_step`. Other arrays may be new ones each time. The function must not change
    what it is given, nor wait for the device. Arrays in a tree that it returns are overwritten by the next call;
    other arrays that it returns are not.

    A call with other arrays in the tree, other shapes or other arguments runs the function itself. So does every
    call on the CPU, and every call of a function that cannot be recorded.

    >>> double = Replayed(lambda tree, factor: {"x": tree["x"] * factor})
    >>> double({"x": np.ones(2)}, 2)
    {'x': array([2., 2.])}
    """

    def __init__(self, function):
        self.function, self.key, self.recording = function, None, None

    def __call__(self, tree, *args):
        if array_module(next(tree_items(tree), (None, None))[1]) is np or not cublas.can_record():
            return self.function(tree, *args)
        before, self.key = self.key, _key(tree, args)
        if self.key != before:
            self.recording = None
            return self.function(tree, *args)
        if self.recording is None:
            self.recording = Recording(self.function, tree, args)
        return self.recording.replay(tree, args)


def _key(tree, args):
    """What a recording depends on: equal keys can share one."""
    from . import is_resting  # when called: the package imports this file first

    addresses = tuple(leaf.data.ptr for _, leaf in tree_items(tree))
    shapes = tuple((a.shape, a.dtype.str) if hasattr(a, "dtype") else a for a in args)
    return addresses, shapes, cublas.math_mode(), is_resting()


class Recording:
    """The launches of function(tree, *args); where they cannot be recorded, `graph` is None and `replay` calls it."""

    def __init__(self, function, tree, args):
        import cupy

        self.function, self.tree = function, tree  # the tree: nothing else may come to lie at its addresses
        cupy.get_default_memory_pool().free_all_blocks()  # what the calls before needed is needed here
        self.pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        stream.wait_event(cupy.cuda.get_current_stream().record())
        self.graph = None
        try:
            with cupy.cuda.using_allocator(self.pool.malloc), stream, cublas.recording(stream) as workspace:
                self.workspace = workspace
                self.inputs = [a.copy() if hasattr(a, "dtype") else a for a in args]
                function(tree, *self.inputs)  # compiles what is not compiled, and fills the pool
                self.graph, self.out = _capture(stream, function, tree, self.inputs)
        except MemoryError:  # it may still run in the memory that all share
            pass
        except RuntimeError as error:  # CuPy has several, for libraries, copies to the host, and waiting
            if "captur" not in str(error).lower():
                raise
        stream.synchronize()  # the pool is in use until the first call is through
        if self.graph is None:
            self.workspace = self.inputs = self.pool = None

    def replay(self, tree, args):
        if self.graph is None:
            return self.function(tree, *args)
        for mine, given in zip(self.inputs, args, strict=True):
            if hasattr(mine, "dtype"):
                mine[...] = given
        self.graph.launch()
        return _own(self.out)


def _capture(stream, function, tree, inputs):
    """The graph of one call, which does not run, and the results that each launch of the graph will write."""
    import cupy

    stream.begin_capture()
    try:
        out = function(tree, *inputs)
    except BaseException:
        with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # that it went wrong is known
            stream.end_capture()
        raise
    return stream.end_capture(), out


def _own(out):
    """What a replay returns: the results, those outside of trees as copies."""
    if isinstance(out, tuple):
        return tuple(map(_own, out))
    return out.copy() if hasattr(out, "dtype") else out
