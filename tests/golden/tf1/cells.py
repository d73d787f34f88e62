"""Cells from the JSON of a header: the class is `type`, the other fields are
arguments of its constructor."""

import importlib

from .graph import flatten, tensorflow, tf

rnn_cell = tf.nn.rnn_cell


class ResetAfterGRUCell(rnn_cell.RNNCell):
    """Keras's GRU cell with reset_after=True, its weights made from variables
    with the names and layouts of CudnnCompatibleGRUCell, which was in
    tf.contrib and computes the same."""

    def __init__(self, num_units, activation="tanh", name="gru_cell"):
        super().__init__(name=name)
        self.num_units = num_units
        self.inner = tensorflow.keras.layers.GRUCell(
            num_units, activation=activation, recurrent_activation="sigmoid",
            reset_after=True)
        self.inner.built = True

    state_size = output_size = property(lambda self: self.num_units)

    def build(self, shape):
        depth, n = int(shape[-1]), self.num_units
        self.gates = [self.add_weight("gates/kernel", [depth + n, 2 * n]),
                      self.add_weight("gates/bias", [2 * n])]
        self.projections = [
            (self.add_weight(f"candidate/{part}_projection/kernel", [rows, n]),
             self.add_weight(f"candidate/{part}_projection/bias", [n]))
            for part, rows in (("input", depth), ("hidden", n))]
        self.built = True

    def call(self, x, h):
        depth = int(x.shape[-1])
        # Keras has the update gate first.
        r, u = tf.split(self.gates[0], 2, axis=1)
        bias_r, bias_u = tf.split(self.gates[1], 2)
        (kernel_x, bias_x), (kernel_h, bias_h) = self.projections
        self.inner.kernel = tf.concat([u[:depth], r[:depth], kernel_x], 1)
        self.inner.recurrent_kernel = tf.concat(
            [u[depth:], r[depth:], kernel_h], 1)
        nothing = tf.zeros_like(self.gates[1])
        self.inner.bias = tf.stack([tf.concat([bias_u, bias_r, bias_x], 0),
                                    tf.concat([nothing, bias_h], 0)])
        return self.inner.call(x, h)


class ToyNested(rnn_cell.RNNCell):
    """Inputs, state and output are nests, and not all of their tensors have
    rank 2."""

    def __init__(self, n, j, k):
        super().__init__(name="toy_nested")
        self.n, self.jk = n, tf.TensorShape([j, k])

    state_size = property(lambda self: (self.n, (self.jk,)))
    output_size = property(lambda self: (self.n, self.jk))

    def build(self, shapes):
        depth = int(shapes[0][-1])
        self.wa = self.add_weight("wa", [depth, self.n])
        self.us = self.add_weight("us", [self.n, self.n])
        self.b1 = self.add_weight("b1", [self.n])
        self.v = self.add_weight("v", self.jk.as_list())
        self.built = True

    def call(self, inputs, state):
        a, b = inputs
        s1, (s2,) = state
        n1 = tf.tanh(tf.matmul(a, self.wa) + tf.matmul(s1, self.us) + self.b1)
        mean = tf.reduce_mean(n1, 1)[:, None, None]
        n2 = 0.5 * s2 + tf.tanh(b) * mean
        return (n1, n2 * self.v), (n1, (n2,))


def default_filter(state):
    """Everything is dropped but the c of an LSTM."""
    if isinstance(state, rnn_cell.LSTMStateTuple):
        return rnn_cell.LSTMStateTuple(c=False, h=True)
    return True


def c_only(state):
    if isinstance(state, rnn_cell.LSTMStateTuple):
        return rnn_cell.LSTMStateTuple(c=True, h=False)
    return True


def skip_second(state):
    """The default, but nothing of the second of three cells."""
    return (True, False, True) if type(state) is tuple else default_filter(
        state)


FILTERS = {"all": lambda state: True, "c_only": c_only,
           "skip_second": skip_second}


def dropout(cell, dtype, **options):
    if "dropout_state_filter_visitor" in options:
        name = options["dropout_state_filter_visitor"]
        options["dropout_state_filter_visitor"] = FILTERS[name]
    if options.get("variational_recurrent"):
        options["dtype"] = dtype
    return rnn_cell.DropoutWrapper(cell, **options)


def recorded(cell, spec):
    """The random numbers of the dropout in a graph: the noise of a wrapper
    with variational dropout, or the keep masks of all calls in their order.
    """
    if spec.get("variational_recurrent"):
        named = {}
        for place in ("input", "state", "output"):
            noise = getattr(cell, f"_recurrent_{place}_noise")
            if noise is not None:
                named.update(flatten(f"noise/{place}", noise))
        return named
    kept = [op.outputs[0] for op in tf.get_default_graph().get_operations()
            if op.type == "GreaterEqual" and "dropout" in op.name]
    return {f"mask/{i:03}": tf.cast(mask, tf.uint8)
            for i, mask in enumerate(kept)}


def stack(cells, same_object=None, **options):
    if same_object:
        cells = cells * same_object
    return rnn_cell.MultiRNNCell(cells, **options)


RESIDUALS = {"mul_add": lambda i, o: i * o + o}


def find_class(name):
    """A class of TensorFlow or, where there is one, of tf.contrib."""
    if hasattr(rnn_cell, name):
        return getattr(rnn_cell, name)
    ops = "tensorflow.contrib.rnn.python.ops."
    for module in (f"{ops}rnn_cell", f"{ops}core_rnn_cell", f"{ops}lstm_ops",
                   f"{ops}gru_ops", "tensorflow.contrib.cudnn_rnn"):
        found = getattr(importlib.import_module(module), name, None)
        if found:
            return found
    raise ValueError(f"there is no cell {name}")


def build_cell(spec, dtype):
    """The cell that a header's JSON describes."""
    options = dict(spec)
    kind = options.pop("type")
    if "activation" in options:
        options["activation"] = tensorflow.keras.activations.get(
            options["activation"])
    if "cells" in options:
        options["cells"] = [build_cell(c, dtype) for c in options["cells"]]
    if "cell" in options:
        options["cell"] = build_cell(options["cell"], dtype)
    if "residual_fn" in options:
        options["residual_fn"] = RESIDUALS[options["residual_fn"]]

    if kind == "DropoutWrapper":
        return dropout(dtype=dtype, **options)
    if kind == "MultiRNNCell":
        return stack(**options)
    if kind == "ToyNested":
        return ToyNested(**options)
    if options.pop("reset_after", False):
        return ResetAfterGRUCell(**options)
    if kind == "CudnnCompatibleGRUCell":
        return ResetAfterGRUCell(**options, name="cudnn_compatible_gru_cell")
    if kind == "TimeFreqLSTMCell":
        return time_freq_lstm(**options)
    if options.pop("v2", False):
        kind += "V2"
    return find_class(kind)(**options)


def time_freq_lstm(blocks, **options):
    """TimeFreqLSTMCell, whose sizes are those of one window: with those of
    `blocks` windows a driver takes it."""
    cell = find_class("TimeFreqLSTMCell")
    units = options["num_units"]

    class Sized(cell):
        state_size = property(lambda self: 2 * units * blocks)
        output_size = property(lambda self: units * blocks)

    Sized.__name__ = cell.__name__  # which names the variables
    return Sized(**options)
