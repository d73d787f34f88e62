"""Random cells of TensorFlow's core: (spec, output size) of each."""

ACTIVATIONS = ["tanh", "relu", "sigmoid", "softsign", "softplus", "elu",
               "linear"]


class Dice:
    def __init__(self, rng):
        self.rng = rng

    def pick(self, values):
        return values[int(self.rng.integers(len(values)))]

    def between(self, low, high):
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def maybe(self, share=0.5):
        return bool(self.rng.random() < share)

    def near(self, units):
        """A number of units for a layer beside others."""
        return max(1, units + self.between(-2, 2))

    def some(self, **options):
        """Some of the options; a list is one to choose from."""
        return {name: self.pick(values) for name, values in options.items()
                if self.maybe(0.4)}


def lstm(dice, units):
    spec = {"type": "LSTMCell", "num_units": units, **dice.some(
        use_peepholes=[True], cell_clip=[0.3, 0.8, 2.0],
        forget_bias=[0.0, 0.5, 1.0, 3.0], activation=ACTIVATIONS,
        num_proj=[1, 2, 3, units, units + 3], proj_clip=[0.2, 0.6])}
    return spec, spec.get("num_proj", units)


def plain(dice, units, flat=False):
    """`flat`: the state is one tensor."""
    kind = dice.pick(["BasicRNNCell", "BasicLSTMCell", "GRUCell", "LSTMCell",
                      "LSTMCell"])
    if kind == "LSTMCell":
        spec, size = lstm(dice, units)
    else:
        spec = {"type": kind, "num_units": units,
                **dice.some(activation=ACTIVATIONS)}
        size = units
        if kind == "BasicLSTMCell":
            spec.update(dice.some(forget_bias=[0.0, 0.5, 2.0]))
    if kind.endswith("LSTMCell") and (flat or dice.maybe(0.15)):
        spec["state_is_tuple"] = False
    return spec, size


def stack(dice, depth, units, inner=None, level=0):
    """A stack; `inner` makes the cells."""
    if inner is None and level == 0 and dice.maybe(0.15):
        cells = [plain(dice, dice.near(units), flat=True)
                 for _ in range(dice.between(1, 3))]
        return ({"type": "MultiRNNCell", "state_is_tuple": False,
                 "cells": [spec for spec, _ in cells]}, cells[-1][1])
    if inner is None and depth == units and dice.maybe(0.2):
        spec, size = plain(dice, units)
        if size == depth:
            return ({"type": "MultiRNNCell", "cells": [spec],
                     "same_object": dice.between(2, 4)}, size)
    specs = []
    for _ in range(dice.between(1, 4)):
        n = dice.near(units)
        if inner:
            spec, depth = inner(dice, depth, n)
        else:
            spec, depth = one_cell(dice, depth, n, level=level + 1)
        specs.append(spec)
    return {"type": "MultiRNNCell", "cells": specs}, depth


def residual(dice, cell, depth, size):
    """The cell in a ResidualWrapper, if its sizes allow that."""
    if depth != size:
        return cell
    spec = {"type": "ResidualWrapper", "cell": cell}
    if dice.maybe(0.3):
        spec["residual_fn"] = "mul_add"
    return spec


def one_cell(dice, depth, units, deep=True, level=0):
    """Any cell for inputs of a depth."""
    kind = dice.between(0, 9) if deep else 0
    if kind in (1, 2) and level < 2:
        return stack(dice, depth, units, level=level)
    if kind == 3:
        spec, size = one_cell(dice, depth, depth, level=level + 1)
        return residual(dice, spec, depth, size), size
    if kind == 4:
        spec, size = one_cell(dice, depth, units, level=level + 1)
        return {"type": "DeviceWrapper", "cell": spec,
                "device": "/cpu:0"}, size
    return plain(dice, units)


def dropped(dice, cell, **options):
    keep = [0.5, 0.6, 0.7, 0.75, 0.9, 1.0]
    return {"type": "DropoutWrapper", "cell": cell,
            "seed": dice.between(1, 1000), **dice.some(
                input_keep_prob=keep, output_keep_prob=keep,
                state_keep_prob=keep), **options}


def with_dropout(dice, depth, units, variational=False, level=0):
    if variational:
        spec, size = one_cell(dice, depth, units)
        options = {"variational_recurrent": True, "input_size": depth}
    else:
        kind = dice.between(0, 7) if level < 2 else 0
        if kind in (1, 2):
            return stack(dice, depth, units, level=level,
                         inner=lambda *a: with_dropout(*a, level=level + 1))
        if kind == 3:
            spec, size = with_dropout(dice, depth, depth, level=level + 1)
            return residual(dice, spec, depth, size), size
        if kind == 4:
            spec, size = with_dropout(dice, depth, units, level=level + 1)
        else:
            spec, size = one_cell(dice, depth, units)
        options = {}
    three = len(spec.get("cells", ())) == 3 and all(
        "cells" not in str(cell) for cell in spec["cells"])
    if dice.maybe(0.3) and spec.get("state_is_tuple", True):
        options["dropout_state_filter_visitor"] = dice.pick(
            ["all", "c_only"] + ["skip_second"] * three)
    return dropped(dice, spec, **options), size
