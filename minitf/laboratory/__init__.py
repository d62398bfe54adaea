"""Experiments that can be stopped, resumed, spread over machines, and checked afterwards.

    stage.py     a Stage says everything about one training run; run_stage is a pure function of it
    recipes.py   the ways to grow a model at the beginning of a stage
    lineages.py  stages in a row: grown, trained on, widened
    store.py     finished runs: one JSON line each, and the weights that a later stage starts from
    sweep.py     runs what is missing, parents first, through any concurrent.futures.Executor

The scripts in figures/ say which stages to run and what to conclude from them.
"""

from .lineages import continued, grown, matching_tokens, tokenformer, transformer, widened
from .recipes import RECIPES, Recipe
from .stage import Growth, Stage, run_stage
from .store import Store
from .sweep import InProcess, process_pool, sweep
