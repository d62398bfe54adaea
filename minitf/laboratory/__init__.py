"""Experiments that can be stopped, resumed, spread over machines, and checked afterwards.

    run.py       what a run is: all that decides its result, the key made of it, and a pure function of it
    stage.py     a Stage is the run that trains a text model, from scratch or grown
    recipes.py   the ways to grow a model at the beginning of a stage
    lineages.py  stages in a row: grown, trained on, widened
    store.py     finished runs: one JSON line each, and the weights that a later stage starts from
    sweep.py     runs what is missing, parents first, through any concurrent.futures.Executor
    tuning.py    every contestant at its best learning rate
    verdict.py   claims written before the runs, judged from what the runs say
    command.py   the command line that every experiment has

The scripts in figures/ say which stages to run and what to conclude from them.
"""

from .lineages import continued, grown, matching_tokens, tokenformer, transformer, widened
from .recipes import RECIPES, Recipe
from .run import Run, do_run
from .stage import Growth, Stage
from .store import Store
from .sweep import InProcess, process_pool, sweep
