"""The drivers that take a cell and a sequence."""

import numpy as np

from .cells import build_cell, find_class, recorded
from .graph import Feeds, differentiate, flatten, initial_state, tf


def length_tensor(case):
    return np.array(case["sequence_length"],
                    case.get("length_dtype", "int32"))


def sequence_lengths(case, feeds, tensors):
    """The arguments of a driver that has lengths."""
    if case.get("sequence_length") is None:
        return {}
    tensors["sequence_length"] = length_tensor(case)
    return {"sequence_length": feeds.add(tensors["sequence_length"])}


def options(case, *names):
    return {name: case[name] for name in names if name in case}


def sequence(case, draw, feeds, shape, **how):
    """A placeholder of a sequence whose steps have a shape."""
    batch_time = [case["B"], case["T"]]
    if case.get("time_major"):
        batch_time.reverse()
    return feeds.add(draw.normal(batch_time + shape, **how))


def draw_inputs(case, draw, feeds):
    """{key: placeholder} of the inputs, and their nest."""
    kind = case.get("input")
    if kind == "ids":
        shape = [case["B"], case["T"], 1]
        if case.get("time_major"):
            shape[:2] = shape[1::-1]
        inputs = feeds.add(draw.integers(shape, 0, case["classes"]))
    elif kind == "image":
        inputs = sequence(case, draw, feeds, case["image"])
    elif kind == "nested":
        inputs = (sequence(case, draw, feeds, [case["I"]]),
                  sequence(case, draw, feeds, [case["j"], case["k"]]))
    elif kind == "phased":
        gaps = draw.uniform([case["B"], case["T"], 1], 0.4, 1.6)
        times = np.cumsum(gaps, 1)
        if case.get("time_major"):
            times = times.swapaxes(0, 1)
        inputs = feeds.add(times), sequence(case, draw, feeds, [case["I"]])
    else:
        inputs = sequence(case, draw, feeds, [case["I"]],
                          scale=case.get("x_scale", 1.0))
    named = flatten("input", inputs)
    return {"input/x" if key == "input" else key: placeholder
            for key, placeholder in named.items()}, inputs


def start(case, draw, feeds, cell, inputs, key="initial_state", name=None):
    """The argument for the state that a cell starts from."""
    if not case.get("initial_state"):
        return {"dtype": draw.dtype}
    state = initial_state(case, draw, feeds, cell)
    inputs.update(flatten(key, state))
    return {name or key: state}


def run_dynamic_rnn(case, draw):
    feeds, tensors = Feeds(), {}
    cell = build_cell(case["cell"], draw.dtype)
    inputs, nest = draw_inputs(case, draw, feeds)
    arguments = options(
        case, "time_major", "parallel_iterations", "swap_memory")
    arguments.update(sequence_lengths(case, feeds, tensors))
    arguments.update(start(case, draw, feeds, cell, inputs))
    outputs, state = tf.nn.dynamic_rnn(cell, nest, **arguments)
    # Inside the loop masks are out of reach, noise is outside of it.
    variational = case["cell"].get("variational_recurrent")
    tensors.update(differentiate(
        case, draw, feeds, inputs,
        {**flatten("outputs", outputs), **flatten("final_state", state)},
        recorded(cell, case["cell"]) if variational else ()))
    return tensors


def steps_of(case, x):
    return tf.unstack(x, axis=0 if case.get("time_major") else 1)


def run_static_rnn(case, draw):
    feeds, tensors = Feeds(), {}
    cell = build_cell(case["cell"], draw.dtype)
    inputs, x = draw_inputs(case, draw, feeds)
    arguments = sequence_lengths(case, feeds, tensors)
    arguments.update(start(case, draw, feeds, cell, inputs))
    outputs, state = tf.nn.static_rnn(cell, steps_of(case, x), **arguments)
    tensors.update(differentiate(
        case, draw, feeds, inputs,
        {"outputs": tf.stack(outputs), **flatten("final_state", state)},
        recorded(cell, case["cell"])))
    return tensors


def run_bidirectional(case, draw):
    """Of dynamic or static RNNs."""
    feeds, tensors = Feeds(), {}
    cells = [build_cell(case[f"cell_{d}"], draw.dtype) for d in ("fw", "bw")]
    inputs, x = draw_inputs(case, draw, feeds)
    arguments = sequence_lengths(case, feeds, tensors)
    for direction, cell in zip(("fw", "bw"), cells):
        arguments.update(start(
            case, draw, feeds, cell, inputs, f"initial_state/{direction}",
            f"initial_state_{direction}"))
    if case["driver"] == "static_bidirectional_rnn":
        outputs, *states = tf.nn.static_bidirectional_rnn(
            *cells, steps_of(case, x), **arguments)
        results = {"outputs": tf.stack(outputs)}
    else:
        arguments.update(options(
            case, "time_major", "parallel_iterations", "swap_memory"))
        (fw, bw), states = tf.nn.bidirectional_dynamic_rnn(
            *cells, x, **arguments)
        results = {"outputs/fw": fw, "outputs/bw": bw}
    for direction, state in zip(("fw", "bw"), states):
        results.update(flatten(f"final_state/{direction}", state))
    tensors.update(differentiate(case, draw, feeds, inputs, results))
    return tensors


def run_stack_bidirectional(case, draw):
    """stack_bidirectional_rnn and stack_bidirectional_dynamic_rnn of
    tf.contrib, as they are there: layers of the bidirectional drivers."""
    feeds, tensors = Feeds(), {}
    inputs, value = draw_inputs(case, draw, feeds)
    lengths = sequence_lengths(case, feeds, tensors)
    static = case["driver"] == "stack_bidirectional_rnn"
    if static:
        value = steps_of(case, value)
    states = {"fw": [], "bw": []}
    with tf.variable_scope("stack_bidirectional_rnn"):
        for i, specs in enumerate(zip(case["cells_fw"], case["cells_bw"])):
            cells = [build_cell(spec, draw.dtype) for spec in specs]
            arguments = dict(lengths)
            for direction, cell in zip(states, cells):
                arguments.update(start(
                    case, draw, feeds, cell, inputs,
                    f"initial_state/{direction}/{i}",
                    f"initial_state_{direction}"))
            with tf.variable_scope(f"cell_{i}"):
                if static:
                    value, *final = tf.nn.static_bidirectional_rnn(
                        *cells, value, **arguments)
                else:
                    both, final = tf.nn.bidirectional_dynamic_rnn(
                        *cells, value, **arguments,
                        **options(case, "time_major"))
                    value = tf.concat(both, 2)
            for direction, state in zip(states, final):
                states[direction].append(state)
    results = {"outputs": tf.stack(value) if static else value}
    for direction, final in states.items():
        results.update(flatten(f"final_state/{direction}", final))
    tensors.update(differentiate(case, draw, feeds, inputs, results))
    return tensors


def run_fused(case, draw):
    """LSTMBlockFusedCell, forwards or reversed; tf.contrib only."""
    from tensorflow.contrib.rnn import TimeReversedFusedRNN
    feeds, tensors = Feeds(), {}
    cell = find_class("LSTMBlockFusedCell")(**case["cell"])
    inputs, x = draw_inputs(case, draw, feeds)
    arguments = sequence_lengths(case, feeds, tensors)
    if case.get("initial_state"):
        c, h = (feeds.add(draw.normal([case["B"], case["H"]], 0.5))
                for _ in range(2))
        inputs.update({"initial_state/c": c, "initial_state/h": h})
        arguments["initial_state"] = c, h
    else:
        arguments["dtype"] = draw.dtype
    if case["driver"].endswith("_reversed"):
        cell = TimeReversedFusedRNN(cell)
    outputs, (c, h) = cell(x, **arguments)
    tensors.update(differentiate(case, draw, feeds, inputs, {
        "outputs": outputs, "final_state/c": c, "final_state/h": h}))
    return tensors
