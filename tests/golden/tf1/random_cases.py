"""The set `random`: drivers, cells, options and sizes drawn at random."""

import numpy as np

from . import random_contrib
from .random_cells import Dice, one_cell, with_dropout
from .surface import state_saving

# Many that are awkward for a kernel: 1, not a multiple of 8, just above one.
SIZES = {
    "B": [1, 1, 2, 3, 3, 4, 5, 8],
    "T": [1, 1, 2, 3, 4, 5, 6, 9, 17, 33],
    "I": [1, 2, 3, 4, 5, 8, 13, 16],
    "H": [1, 2, 3, 5, 5, 7, 8, 9, 16, 17, 31, 40],
}
OPTIMIZERS = [
    ("GradientDescentOptimizer", {}), ("AdamOptimizer", {}),
    ("AdamOptimizer", {"beta1": 0.6, "beta2": 0.95, "epsilon": 1e-3}),
    ("MomentumOptimizer", {"momentum": 0.9}),
    ("MomentumOptimizer", {"momentum": 0.8, "use_nesterov": True}),
    ("RMSPropOptimizer", {}),
    ("RMSPropOptimizer", {"decay": 0.7, "momentum": 0.6, "epsilon": 1e-4}),
    ("RMSPropOptimizer", {"centered": True, "epsilon": 1e-3}),
    ("AdagradOptimizer", {}),
    ("AdagradOptimizer", {"initial_accumulator_value": 0.3}),
]


class Sizes(dict):
    """B, T, I and H of a case, and lengths that fit."""

    def __init__(self, dice, fixed):
        super().__init__({name: fixed.get(name, dice.pick(values))
                          for name, values in SIZES.items()})
        self.dice = dice

    def short(self):
        """No longer than the graph of an unrolled loop should be."""
        self["T"] = min(self["T"], 9)

    def lengths(self, above=False):
        """A random row of lengths: whole, ragged, empty, below T throughout
        or, if `above`, beyond it."""
        steps = self["T"]
        low, high = self.dice.pick(
            [(0, steps)] * 4 + [(steps, steps), (0, 0), (0, steps - 1)]
            + [(0, steps + 4)] * above)
        drawn = self.dice.rng.integers(low, high + 1, self["B"])
        return [int(length) for length in drawn]

    def options(self, above=True, dynamic=False):
        options = {}
        if self.dice.maybe(0.7):
            options["sequence_length"] = self.lengths(above)
            if dynamic and self.dice.maybe(0.2):
                options["length_dtype"] = "int64"
        if self.dice.maybe(0.6):
            options["initial_state"] = True
        if self.dice.maybe(0.4):
            options["time_major"] = True
        if dynamic and self.dice.maybe(0.15):
            options["swap_memory"] = True
        if dynamic and self.dice.maybe(0.15):
            options["parallel_iterations"] = self.dice.pick([1, 2, 50])
        return options


def dynamic(dice, sizes):
    cell, _ = one_cell(dice, sizes["I"], sizes["H"])
    return {"driver": "dynamic_rnn", "cell": cell,
            **sizes.options(dynamic=True)}


def static(dice, sizes):
    sizes.short()
    cell, _ = one_cell(dice, sizes["I"], sizes["H"])
    return {"driver": "static_rnn", "cell": cell, **sizes.options()}


def dropout_static(dice, sizes):
    sizes.short()
    options = sizes.options()
    # Masks of steps that TensorFlow skips cannot be recorded.
    options.pop("sequence_length", None)
    cell, _ = with_dropout(dice, sizes["I"], sizes["H"])
    return {"driver": "static_rnn", "cell": cell, **options}


def dropout_variational(dice, sizes):
    cell, _ = with_dropout(dice, sizes["I"], sizes["H"], variational=True)
    if dice.maybe(0.3):
        return {"driver": "static_rnn", "cell": cell, **sizes.options()}
    return {"driver": "dynamic_rnn", "cell": cell,
            **sizes.options(dynamic=True)}


def nested(dice, sizes):
    j, k = dice.between(1, 4), dice.between(1, 4)
    return {"driver": "dynamic_rnn", "input": "nested", "j": j, "k": k,
            "cell": {"type": "ToyNested", "n": sizes["H"], "j": j, "k": k},
            **sizes.options(dynamic=True)}


def bidirectional(dice, sizes):
    static = dice.maybe(0.4)
    if static:
        sizes.short()
    cells = {f"cell_{d}": one_cell(dice, sizes["I"], sizes["H"])[0]
             for d in ("fw", "bw")}
    # Beyond T there is nothing to reverse.
    return {"driver": "static_bidirectional_rnn" if static
            else "bidirectional_dynamic_rnn", **cells,
            **sizes.options(above=False, dynamic=not static)}


def stack_bidirectional(dice, sizes):
    depth, layers = sizes["I"], {"cells_fw": [], "cells_bw": []}
    for _ in range(dice.between(1, 3)):
        width = 0
        for cells in layers.values():
            cell, size = one_cell(dice, depth, dice.near(sizes["H"]))
            cells.append(cell)
            width += size
        depth = width
    static = dice.maybe(0.4)
    if static:
        sizes.short()
    return {"driver": "stack_bidirectional_rnn" if static
            else "stack_bidirectional_dynamic_rnn", **layers,
            **sizes.options(above=False)}


def raw_rnn(dice, sizes):
    loop_fn = dice.pick(["dynamic_equiv", "feedback", "data_stop",
                         "greedy_decoder", "scale_state"])
    more = {}
    if loop_fn in ("feedback", "data_stop"):
        # What comes out goes in.
        cell, size = one_cell(dice, sizes["H"], sizes["H"])
        if size != sizes["H"]:
            cell = {"type": "GRUCell", "num_units": sizes["H"]}
        sizes["I"] = sizes["H"]
    else:
        cell, _ = one_cell(dice, sizes["I"], sizes["H"])
    if loop_fn == "data_stop":
        more["threshold"] = dice.pick([-0.05, 0.02, 0.1, 0.3])
    else:
        more["sequence_length"] = sizes.lengths()
    if loop_fn == "greedy_decoder":
        more["V"] = dice.between(2, 9)
    if dice.maybe(0.6):
        more["initial_state"] = True
    return {"driver": "raw_rnn", "loop_fn": loop_fn, "cell": cell,
            "input": None, **more}


def saving(dice, sizes):
    chunks, unroll = dice.between(1, 4), dice.between(1, 4)
    sizes["T"] = chunks * unroll
    # Names for flat states only.
    cell, _ = one_cell(dice, sizes["I"], sizes["H"], deep=False)
    return state_saving("", cell, sizes, chunks, unroll, sizes.lengths(True))


def training(dice, sizes):
    embedding = dice.maybe(0.6)
    optimizer, options = dice.pick(OPTIMIZERS)
    return {
        "driver": "train", "classes": dice.between(2, 6),
        "steps": dice.between(1, 6),
        "cell": {"type": "BasicLSTMCell", "num_units": sizes["H"]},
        "model": "logits = final h . softmax/kernel + softmax/bias; "
                 "loss = mean cross-entropy",
        "optimizer": optimizer, "clip_norm": dice.pick([0.1, 0.5, 5.0]),
        "options": {"learning_rate": dice.pick([0.005, 0.02, 0.1]),
                    **options},
        "embedding": embedding, "T": min(sizes["T"], 9),
    }


def losses(dice, sizes):
    del sizes["I"], sizes["H"]
    # A loss of no step at all is not a number.
    return {"driver": "losses", "V": dice.between(2, 9),
            "sequence_length": [max(length, int(i == 0)) for i, length
                                in enumerate(sizes.lengths())]}


# How often, and what.
SUBJECTS = [(6, dynamic), (3, static), (3, dropout_static),
            (3, dropout_variational), (1, nested), (3, bidirectional),
            (2, stack_bidirectional), (4, raw_rnn), (1, saving),
            (2, training), (1, losses)]
CONTRIB = [(10, random_contrib.cell), (4, random_contrib.wrapper),
           (2, random_contrib.fused)]


def cases(seed, count, fixed, contrib):
    """Yield `count` headers; `fixed` are sizes that are given."""
    subjects = [subject for weight, subject
                in SUBJECTS + CONTRIB * contrib for _ in range(weight)]
    for i in range(count):
        dice = Dice(np.random.default_rng([seed, i]))
        subject = dice.pick(subjects)
        sizes = Sizes(dice, fixed)
        drawn = subject(dice, sizes)
        case = {**sizes, **drawn,
                "name": f"random_{subject.__name__}/{seed}_{i:03}"}
        width = case.get("I", 1) + case.get("H", 1)
        if case["driver"] not in ("train", "losses"):
            # Wide layers keep out of the flat ends of their gates, and long
            # loops do not make much of the rounding of their first steps.
            scale = min(0.5, 1.2 / width ** 0.5)
            case["weight_scale"] = round(
                scale if case["T"] < 10 else 0.6 * scale, 3)
        yield case
