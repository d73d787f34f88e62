#!/usr/bin/env python3
"""Write golden files: what TensorFlow 1.x computes for small random models.

    python generate.py OUT_DIR [--seed N] [--only GROUP.CASE-prefix]

Every case is run twice, in f64 and in f32, from one random draw. README.md
describes the files.
"""

import os

# oneDNN kernels sum in an order that depends on the machine.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np  # noqa: E402
import tensorflow  # noqa: E402
from common import main  # noqa: E402

tf = tensorflow.compat.v1
tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)

# --------------------------------------------------------------------------
# The cases
# --------------------------------------------------------------------------

# B, T, I, H and P (the projection) all differ, so that a swapped axis cannot
# go unnoticed.
SIZES = {"B": 4, "T": 6, "I": 3, "H": 7}
P = 2
RAGGED = [4, 0, 6, 1]

# Everything but num_units, which is the case's H.
CELLS = {
    "basic_rnn": {"type": "BasicRNNCell"},
    "basic_rnn_relu": {"type": "BasicRNNCell", "activation": "relu"},
    "basic_lstm": {"type": "BasicLSTMCell"},
    "basic_lstm_fb_relu": {
        "type": "BasicLSTMCell", "forget_bias": 0.3, "activation": "relu"},
    "basic_lstm_concat": {"type": "BasicLSTMCell", "state_is_tuple": False},
    "gru": {"type": "GRUCell"},
    "gru_relu": {"type": "GRUCell", "activation": "relu"},
    "gru_reset_after": {"type": "GRUCell", "reset_after": True},
    "gru_reset_after_relu": {
        "type": "GRUCell", "reset_after": True, "activation": "relu"},
    "lstm": {"type": "LSTMCell"},
    "lstm_fb_softsign": {
        "type": "LSTMCell", "forget_bias": 0.0, "activation": "softsign"},
    "lstm_peephole": {"type": "LSTMCell", "use_peepholes": True},
    "lstm_cell_clip": {"type": "LSTMCell", "cell_clip": 0.4},
    "lstm_proj": {"type": "LSTMCell", "num_proj": P},
    "lstm_peep_clip_proj": {
        "type": "LSTMCell", "use_peepholes": True, "cell_clip": 0.4,
        "num_proj": P, "proj_clip": 0.3, "forget_bias": 0.5},
    "lstm_full_concat": {
        "type": "LSTMCell", "use_peepholes": True, "cell_clip": 0.8,
        "num_proj": P, "proj_clip": 0.5, "state_is_tuple": False},
}
PLAIN = ["basic_rnn", "gru", "lstm"]

LARGER = {"sequence_length": [11, 23, 0, 18], "B": 4, "T": 23, "I": 9,
          "H": 17, "weight_scale": 0.3}

# Not in the groups of all cells.
MORE_CELLS = {"gru_cudnn": {"type": "CudnnCompatibleGRUCell"}}

# (group, cells, options). An option goes into the file header as it stands;
# options left out have TensorFlow's default.
DYNAMIC = [
    ("dynamic_full", PLAIN, {}),
    ("dynamic_full_tm", CELLS, {"time_major": True}),
    ("dynamic_len_init", CELLS,
     {"sequence_length": RAGGED, "initial_state": True}),
    ("dynamic_len_tm_init", PLAIN + ["lstm_peep_clip_proj"],
     {"sequence_length": RAGGED, "initial_state": True, "time_major": True}),
    ("dynamic_len_zero_init", PLAIN + ["gru_cudnn"], {"sequence_length": [2, 6, 1, 3]}),
    ("dynamic_len_int64", ["gru"],
     {"sequence_length": RAGGED, "length_dtype": "int64"}),
    ("dynamic_len_above_T", ["lstm"],
     {"sequence_length": [9, 2, 6, 7], "initial_state": True}),
    ("dynamic_max_len_below_T", ["lstm"],
     {"sequence_length": [3, 5, 0, 2], "initial_state": True, "T": 8}),
    ("dynamic_all_zero_lengths", ["gru", "lstm"],
     {"sequence_length": [0, 0, 0, 0], "initial_state": True}),
    ("dynamic_t1", PLAIN,
     {"sequence_length": [1, 0, 1, 1], "initial_state": True, "T": 1}),
    ("dynamic_b1", ["lstm"],
     {"sequence_length": [5], "initial_state": True, "B": 1}),
    ("dynamic_swap_par1", ["basic_lstm"],
     {"sequence_length": RAGGED, "swap_memory": True,
      "parallel_iterations": 1}),
    # Gates driven far into the flat ends of the sigmoid.
    ("dynamic_saturated", ["lstm_peephole"],
     {"sequence_length": RAGGED, "weight_scale": 1.5, "x_scale": 30.0}),
    ("dynamic_larger", ["gru"], LARGER),
    ("dynamic_larger", ["lstm"], {**LARGER, "initial_state": True}),
]

# case -> (optimizer, options, clip_norm). With the default seed each of these
# norms clips the first steps of its trajectory and not the last ones.
TRAIN = {
    "sgd": ("GradientDescentOptimizer", {"learning_rate": 0.3}, 0.47),
    "momentum": (
        "MomentumOptimizer", {"learning_rate": 0.2, "momentum": 0.8}, 0.44),
    "nesterov": (
        "MomentumOptimizer",
        {"learning_rate": 0.2, "momentum": 0.8, "use_nesterov": True}, 0.55),
    "adam": ("AdamOptimizer", {"learning_rate": 0.02}, 0.5),
    "adam_custom": (
        "AdamOptimizer",
        {"learning_rate": 0.03, "beta1": 0.6, "beta2": 0.95,
         "epsilon": 0.002}, 0.85),
    "rmsprop": ("RMSPropOptimizer", {"learning_rate": 0.05}, 0.362),
    "rmsprop_momentum": (
        "RMSPropOptimizer",
        {"learning_rate": 0.05, "decay": 0.7, "momentum": 0.6,
         "epsilon": 1e-6}, 0.78),
    "rmsprop_centered": (
        "RMSPropOptimizer",
        {"learning_rate": 0.05, "centered": True, "epsilon": 1e-4}, 0.57),
    "adagrad": ("AdagradOptimizer", {"learning_rate": 0.2}, 0.33),
}


def all_cases():
    """Yield (run function, header) of every case; headers lack the dtype."""
    for group, cells, options in DYNAMIC:
        for cell in cells:
            case = {**SIZES, **options, "driver": "dynamic_rnn"}
            spec = {**CELLS, **MORE_CELLS}[cell]
            case["cell"] = {**spec, "num_units": case["H"]}
            case["name"] = f"{group}/{cell}"
            yield run_dynamic_rnn, case
    yield run_stack_bidirectional_rnn, {
        **SIZES, "name": "stack_bidirectional_rnn/mixed",
        "driver": "stack_bidirectional_rnn",
        "sequence_length": RAGGED, "initial_state": True,
        "cells_fw": [{"type": "LSTMCell", "num_units": 5},
                     {"type": "GRUCell", "num_units": 4}],
        "cells_bw": [{"type": "GRUCell", "num_units": 2},
                     {"type": "LSTMCell", "num_units": 3}],
    }
    for name, (optimizer, options, clip_norm) in TRAIN.items():
        yield run_train, {
            "name": f"train/{name}", "driver": "train",
            "B": 5, "T": 4, "I": 2, "H": 3, "classes": 6, "steps": 5,
            "cell": {"type": "BasicLSTMCell", "num_units": 3},
            "model": "logits = final h . softmax/kernel + softmax/bias; "
                     "loss = mean cross-entropy",
            "optimizer": optimizer, "options": options,
            "clip_norm": clip_norm, "embedding": False,
        }
    yield run_losses, {
        "name": "losses/sequence_loss", "driver": "losses",
        "B": 3, "T": 6, "V": 5,
    }


# --------------------------------------------------------------------------
# Drawing and structure helpers
# --------------------------------------------------------------------------


class Feeds(dict):
    """feed_dict that remembers which value goes into which placeholder."""

    def add(self, value):
        placeholder = tf.placeholder(value.dtype, value.shape)
        self[placeholder] = value
        return placeholder


def flatten(prefix, value):
    """{key: leaf} of a tensor, an LSTMStateTuple or a tuple of these."""
    if hasattr(value, "_fields"):
        parts = zip(value._fields, value)
    elif isinstance(value, (tuple, list)):
        parts = ((str(i), part) for i, part in enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, part in parts
            for key, leaf in flatten(f"{prefix}/{name}", part).items()}


def new_session():
    # One thread: the same sums in the same order on every run.
    return tf.Session(config=tf.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1))


def draw_weights(draw, scale):
    """{key: (variable, value)} for all variables, biases included."""
    variables = {v.op.name: v for v in tf.trainable_variables()}
    return {f"weights/{name}": (v, draw.normal(v.shape.as_list(), scale))
            for name, v in sorted(variables.items())}


# --------------------------------------------------------------------------
# The drivers
# --------------------------------------------------------------------------


class ResetAfterGRUCell(tf.nn.rnn_cell.RNNCell):
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


def build_cell(spec):
    """The cell a header's JSON describes: its type, the rest are options."""
    options = {key: value for key, value in spec.items() if key != "type"}
    if options.pop("reset_after", False):
        return ResetAfterGRUCell(**options)
    if spec["type"] == "CudnnCompatibleGRUCell":
        return ResetAfterGRUCell(**options, name="cudnn_compatible_gru_cell")
    return getattr(tf.nn.rnn_cell, spec["type"])(**options)


def run_dynamic_rnn(case, draw):
    feeds = Feeds()
    inputs = {}  # what gradients are taken of, besides the weights
    arguments = {key: case[key] for key in
                 ("time_major", "parallel_iterations", "swap_memory")
                 if key in case}
    cell = build_cell(case["cell"])

    shape = [case["B"], case["T"], case["I"]]
    if case.get("time_major"):
        shape[:2] = shape[1::-1]
    inputs["input/x"] = feeds.add(
        draw.normal(shape, case.get("x_scale", 1.0)))

    tensors = {}
    if "sequence_length" in case:
        lengths = np.array(case["sequence_length"],
                           case.get("length_dtype", "int32"))
        tensors["sequence_length"] = lengths
        arguments["sequence_length"] = feeds.add(lengths)

    if case.get("initial_state"):
        state = tensorflow.nest.map_structure(
            lambda size: feeds.add(draw.normal([case["B"], size], 0.5)),
            cell.state_size)
        inputs.update(flatten("initial_state", state))
        arguments["initial_state"] = state
    else:
        arguments["dtype"] = draw.dtype

    outputs, final_state = tf.nn.dynamic_rnn(
        cell, inputs["input/x"], **arguments)
    tensors.update(differentiate(case, draw, feeds, inputs, {
        **flatten("outputs", outputs), **flatten("final_state", final_state)}))
    return tensors


def run_stack_bidirectional_rnn(case, draw):
    """tf.contrib.rnn.stack_bidirectional_rnn, which TensorFlow 2.15 does not
    have: as there, layers of static_bidirectional_rnn."""
    feeds = Feeds()
    x = draw.normal([case["B"], case["T"], case["I"]])
    inputs = {"input/x": feeds.add(x)}
    lengths = np.array(case["sequence_length"], np.int32)
    states = {"fw": [], "bw": []}
    value = tf.unstack(inputs["input/x"], axis=1)
    with tf.variable_scope("stack_bidirectional_rnn"):
        for i, specs in enumerate(zip(case["cells_fw"], case["cells_bw"])):
            cells = [build_cell(spec) for spec in specs]
            initial = [tensorflow.nest.map_structure(
                lambda size: feeds.add(draw.normal([case["B"], size], 0.5)),
                cell.state_size) for cell in cells]
            with tf.variable_scope(f"cell_{i}"):
                value, *final = tf.nn.static_bidirectional_rnn(
                    *cells, value, *initial, sequence_length=lengths)
            for direction, start, end in zip(states, initial, final):
                inputs.update(flatten(f"initial_state/{direction}/{i}", start))
                states[direction].append(end)
    return {"sequence_length": lengths,
            **differentiate(case, draw, feeds, inputs, {
                "outputs": tf.stack(value),
                **flatten("final_state/fw", states["fw"]),
                **flatten("final_state/bw", states["bw"])})}


def differentiate(case, draw, feeds, inputs, results):
    """The tensors of a file, with values and gradients of a random weighting
    of `results`; notes in the header what has no gradient."""
    tensors = {}
    weights = draw_weights(draw, case.get("weight_scale", 0.5))
    weightings = {f"R/{key}": draw.normal(value.shape.as_list())
                  for key, value in results.items()}
    loss = tf.add_n([tf.reduce_sum(value * feeds.add(weightings[f"R/{key}"]))
                     for key, value in results.items()])

    sources = {key: variable for key, (variable, _) in weights.items()}
    sources.update(inputs)
    gradients = dict(zip(sources, tf.gradients(loss, list(sources.values()))))
    missing = sorted(key for key, g in gradients.items() if g is None)
    if missing:
        case["no_gradient"] = missing

    fetches = {**results, "loss": loss}
    fetches.update((f"grad/{key}", g) for key, g in gradients.items()
                   if g is not None)

    with new_session() as session:
        for key, (variable, value) in weights.items():
            variable.load(value, session)
            tensors[key] = value
        tensors.update(session.run(fetches, feeds))
    tensors.update(weightings)
    tensors.update((key, feeds[p]) for key, p in inputs.items())
    return tensors


def run_train(case, draw):
    """A few optimizer steps; see `model` in the header."""
    feeds = Feeds()
    batch, units, classes = case["B"], case["H"], case["classes"]
    x = draw.normal([batch, case["T"], case["I"]])
    lengths = draw.integers([batch], 1, case["T"] + 1)
    labels = draw.integers([batch], 0, classes)

    _, state = tf.nn.dynamic_rnn(
        build_cell(case["cell"]), feeds.add(x),
        sequence_length=feeds.add(lengths), dtype=draw.dtype)
    with tf.variable_scope("softmax"):
        kernel = tf.get_variable("kernel", [units, classes], draw.dtype)
        bias = tf.get_variable("bias", [classes], draw.dtype)
    logits = tf.matmul(state.h, kernel) + bias
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=feeds.add(labels), logits=logits))

    weights = draw_weights(draw, 1.0)
    variables = {key: variable for key, (variable, _) in weights.items()}
    gradients, global_norm = tf.clip_by_global_norm(
        tf.gradients(loss, list(variables.values())), case["clip_norm"])
    optimizer = getattr(tf.train, case["optimizer"])(**case["options"])
    update = optimizer.apply_gradients(zip(gradients, variables.values()))

    tensors = {"input/x": x, "sequence_length": lengths, "labels": labels}
    with new_session() as session:
        session.run(tf.global_variables_initializer())  # the slots
        for variable, value in weights.values():
            variable.load(value, session)
        for step in range(case["steps"] + 1):
            values = session.run(
                {**variables, "loss": loss, "global_norm": global_norm},
                feeds)
            tensors.update((f"step/{step}/{key}", value)
                           for key, value in values.items())
            if step < case["steps"]:
                session.run(update, feeds)
        tensors.update(session.run(
            {f"slot/{slot}/{v.op.name}": optimizer.get_slot(v, slot)
             for slot in optimizer.get_slot_names()
             for v in variables.values()}))
    return tensors


# TensorFlow 2.15 has no tf.contrib; the two functions below are what
# tf.contrib.seq2seq.sequence_loss and the legacy list form compute.


def sequence_loss(logits, targets, weights, across_time=None,
                  across_batch=None):
    """`across_*`: None, "avg" (divide by the sum of the weights on that
    axis) or "sum" (divide by the number of nonzero weights)."""
    crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=targets, logits=logits) * weights
    modes = {1: across_time, 0: across_batch}
    axes = [axis for axis, mode in modes.items() if mode]
    if not axes:
        return crossent
    if modes[axes[0]] == "avg":
        divisor = tf.reduce_sum(weights, axes)
    else:
        divisor = tf.cast(tf.math.count_nonzero(weights, axes), weights.dtype)
    return tf.div_no_nan(tf.reduce_sum(crossent, axes), divisor)


def legacy_loss_by_example(logits, targets, weights, average):
    crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=targets, logits=logits) * weights
    total = tf.reduce_sum(crossent, 1)
    if average:
        total /= tf.reduce_sum(weights, 1) + 1e-12
    return total


def run_losses(case, draw):
    batch, time, classes = case["B"], case["T"], case["V"]
    feeds = Feeds()
    # Shorter than T throughout, so that the mask's default width shows.
    lengths = np.array([4, 0, 3], np.int32)
    mask = (np.arange(time) < lengths[:, None]).astype(draw.dtype)
    tensors = {
        "logits": draw.normal([batch, time, classes], 2.0),
        "targets": draw.integers([batch, time], 0, classes),
        "sequence_length": lengths,
        "weights/ones": np.ones_like(mask),
        "weights/mask": mask,
        "weights/fractional": mask * draw.uniform(mask.shape, 0.25, 2.0),
    }
    given = {key: feeds.add(value) for key, value in tensors.items()}
    logits, targets = given["logits"], given["targets"]
    lengths = given["sequence_length"]

    fetches = {}
    for kind in ("ones", "mask", "fractional"):
        arguments = logits, targets, given[f"weights/{kind}"]
        per_row = legacy_loss_by_example(*arguments, average=True)
        losses = {
            "none": sequence_loss(*arguments),
            "avg_time_avg_batch": sequence_loss(*arguments, "avg", "avg"),
            "avg_time": sequence_loss(*arguments, across_time="avg"),
            "avg_batch": sequence_loss(*arguments, across_batch="avg"),
            "sum_time_sum_batch": sequence_loss(*arguments, "sum", "sum"),
            "sum_time": sequence_loss(*arguments, across_time="sum"),
            "sum_batch": sequence_loss(*arguments, across_batch="sum"),
            "legacy_by_example_avg": per_row,
            "legacy_by_example_sum": legacy_loss_by_example(
                *arguments, average=False),
            "legacy_sum_batch": tf.reduce_sum(per_row),
            "legacy_avg_batch": tf.reduce_sum(per_row) / batch,
        }
        for name, value in losses.items():
            key = f"sequence_loss/{kind}/{name}"
            fetches[key] = value
            fetches[f"grad/{key}"] = tf.gradients(value, logits)[0]

    softmax = tf.nn.softmax(logits)
    fetches.update({
        "softmax": softmax,
        "crossent": tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=targets, logits=logits),
        # Dense labels: the softmax of the time-reversed logits.
        "softmax_crossent_dense": tf.nn.softmax_cross_entropy_with_logits_v2(
            labels=tf.reverse(softmax, [1]), logits=logits),
        "mse": tf.reduce_mean(tf.square(logits - 0.25)),
        "in_top_1": tf.nn.in_top_k(
            tf.cast(tf.reshape(logits, [-1, classes]), tf.float32),
            tf.reshape(targets, [-1]), 1),
        "sequence_mask": tf.sequence_mask(lengths, time),
        "sequence_mask_default_maxlen": tf.sequence_mask(lengths),
        "sign_mask": tf.sign(tf.cast(targets, draw.dtype)),
        "reverse_sequence/batch_major": tf.reverse_sequence(
            logits, lengths, seq_axis=1, batch_axis=0),
        "reverse_sequence/time_major": tf.reverse_sequence(
            tf.transpose(logits, [1, 0, 2]), lengths,
            seq_axis=0, batch_axis=1),
        "clip_by_value": tf.clip_by_value(logits, -0.7, 0.9),
        "clip_by_norm": tf.clip_by_norm(logits, 2.0),
    })
    for name, clip_norm in (("active", 1.5), ("inactive", 1000.0)):
        clipped, norm = tf.clip_by_global_norm(
            [logits, given["weights/fractional"]], clip_norm)
        fetches.update(flatten(f"clip_by_global_norm/{name}", clipped))
        fetches[f"clip_by_global_norm/{name}/norm"] = norm

    with new_session() as session:
        tensors.update(session.run(fetches, feeds))
    return tensors


def in_graph(run):
    """`run` with a graph of its own."""
    def graph(case, draw):
        with tf.Graph().as_default():
            return run(case, draw)
    return graph


if __name__ == "__main__":
    main(__doc__, lambda: ((in_graph(run), case) for run, case in all_cases()),
         {"tf_version": tensorflow.__version__})
