"""static_state_saving_rnn: a sequence in pieces, with the state kept between
them."""

import numpy as np

from .cells import build_cell
from .drivers import length_tensor, steps_of
from .graph import draw_weights, flatten, initial_state, new_session, tf
from .graph import Feeds


class Saver:
    """States by name, given by placeholders."""

    def __init__(self, states):
        self.states, self.saved = states, {}

    def state(self, name):
        return self.states[name]

    def save_state(self, name, value):
        self.saved[name] = tf.identity(value)
        return self.saved[name]


def run_state_saving(case, draw):
    feeds, unroll = Feeds(), case["num_unroll"]
    cell = build_cell(case["cell"], draw.dtype)
    x = draw.normal([case["B"], case["T"], case["I"]])
    piece = tf.placeholder(draw.dtype, [case["B"], unroll, case["I"]])
    lengths_now = tf.placeholder(tf.int32, [case["B"]])
    states = initial_state(case, draw, feeds, cell)
    # A state that is one tensor has no name of its own.
    leaves = {key[1:] or "s": leaf for key, leaf
              in flatten("", states).items()}
    names = list(leaves)
    if tf.nest.is_nested(states):
        names = tf.nest.pack_sequence_as(states, names)
    saver = Saver(leaves)
    outputs, _ = tf.nn.static_state_saving_rnn(
        cell, steps_of(case, piece), saver,
        names if tf.nest.is_nested(states) else names[0],
        sequence_length=lengths_now)
    outputs = tf.stack(outputs, 1)
    weighting = tf.placeholder(draw.dtype, outputs.shape)
    weights = draw_weights(draw, case.get("weight_scale", 0.5))
    gradients = tf.gradients(tf.reduce_sum(outputs * weighting),
                             [variable for variable, _ in weights.values()])

    lengths = length_tensor(case)
    tensors = {"input/x": x, "sequence_length": lengths}
    tensors.update((key, value) for key, (_, value) in weights.items())
    values = {name: feeds[leaf] for name, leaf in leaves.items()}
    tensors.update((f"initial_state/{name}", value)
                   for name, value in values.items())
    with new_session() as session:
        for variable, value in weights.values():
            variable.load(value, session)
        for k in range(case["chunks"]):
            given = {
                "sequence_length": np.clip(lengths - k * unroll, 0, unroll),
                "R": draw.normal(outputs.shape.as_list())}
            results = session.run(
                {"outputs": outputs,
                 **{f"saved_state/{name}": saver.saved[name]
                    for name in leaves},
                 **{f"grad/{key}": g for key, g in zip(weights, gradients)}},
                {piece: x[:, k * unroll:(k + 1) * unroll],
                 lengths_now: given["sequence_length"],
                 weighting: given["R"],
                 **{leaves[name]: value for name, value in values.items()}})
            values = {name: results[f"saved_state/{name}"] for name in leaves}
            tensors.update((f"chunk/{k}/{key}", value)
                           for key, value in {**given, **results}.items())
    return tensors
