"""Grade notebooks that nobody trusts: nbgrader, with the submission in a process of its own that sees nothing.

Read in this order: `confine` (what a submission can reach), `wire` (what may pass between it and the grader), `worker`
(its side), `student` (our side), `apart` (the step of nbgrader that runs a notebook so); then `intake`, `assignment`,
`grading` and what comes out, `export`, `items` and `pages`. `course`, `mutants`, `collect`, `exchange` and `demo` make
what goes in.
"""
