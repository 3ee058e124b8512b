"""The chaos suite: whatever dies, the state ends as a clean replay of the log would leave it, and everybody is answered.

    make chaos ARGS="--seed 7 --scenario kill_worker --events 200000 --broker apache"      (python -m tests.chaos)

One run = one *scenario* on servers of its own, in a folder of its own:

    traffic.py   the events, by seed alone: users, sessions, repeats, late ones, broken ones, forgets
    dataset.py   a data set folder's rows in their place (`--dataset`)
    stand.py     broker, Redis, topics, workers: `Stand` starts them, kills, stops, starts again, watches their logs
    faults.py    a plan is a list of `Fault`s: *when* (so many events applied, a line in a worker's log, a delay), *what*
                 (the name of a function in KINDS with its arguments), *how long*. `play` strikes them while traffic flows
    truth.py     the log as the broker holds it at the end, replayed in memory: no fault can touch that
    verdict.py   state against truth, in numbers: lost, counted twice, unanswered, dead letters missing, the digest
    run.py       prepare, play, settle, judge; `Result` is a row of the table
    scenarios/   what is done to whom; a module registers `Scenario`s (`scenarios/__init__.py` lists the modules)

A scenario is data and one function: `Scenario(name, about, plan, setup)`. `plan(random, events) -> list[Fault]` draws
from the `random.Random` that it is given and from nothing else: one seed, one plan. A new kind of fault is a function

    @fault
    def cut_network(stand: Stand, *, seconds: float) -> Callable[[], None] | None: ...

that strikes at once and returns what ends it (None: nothing to end; the Fault's `lasts_ms` or `until` says when it is
called). `Setup` says what the stand looks like: workers, settings laid over the worker's, brokers and Redis kinds that
it can run on, the shape of the traffic, how far it may run ahead of the state and of the next fault, and
`prepare(stand)`, called when the servers run and before topics and workers are there (proxies go here: set
`stand.bootstrap_of_workers`, `stand.redis_of_workers`). A scenario that is no "faults, then all is well" has a
`drive(stand, sender, watch, plan, result, tell)` of its own in place of `run.play` (which it may call), and a
`judge(settings, truth)` in place of `verdict.judge`.

`unfenced.py` is a worker without its fence: with it the suite has to fail (`--unfenced`, `test_short.py`).
"""
