"""The workloads of `cargo xtask bench` that ONNX's own operators express, as ONNX models."""

import sys

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPERATORS = {"rnn_tanh": ("RNN", 1, "h"), "lstm": ("LSTM", 4, "hc"), "gru": ("GRU", 3, "h")}
RANDOM = np.random.default_rng(0)


def end_unless_supported(args):
    """Ends the program for a workload that no program of ONNX's operators computes: one that
    trains, is on another device than the CPU, or has another cell."""
    if args.mode not in ("fwd", "stream") or args.device != "cpu" or args.cell not in OPERATORS:
        sys.exit()


def states(args):
    """The names of the states that the model of a stream takes. Those that it returns end with
    `_next`."""
    return [f"{s}{layer}" for layer in range(args.layers) for s in OPERATORS[args.cell][2]]


def layers(args):
    """Stacked layers, `x: [T, B, inputs]` to `y: [T, B, units]`. When streaming, states are inputs
    and outputs."""
    operator, gates, names = OPERATORS[args.cell]
    # The GRU of PyTorch and of the workloads resets after the product.
    attributes = {"hidden_size": args.units}
    if operator == "GRU":
        attributes["linear_before_reset"] = 1
    streaming = args.mode == "stream"
    limit = args.units**-0.5
    inputs, outputs = (
        [_value("x", [args.steps, args.batch, args.inputs])],
        [_value("y", [args.steps, args.batch, args.units])],
    )
    nodes, weights = [], [numpy_helper.from_array(np.array([1]), "direction")]
    if args.lengths:
        inputs.append(_value("lengths", [args.batch], TensorProto.INT32))
    below, depth = "x", args.inputs
    for layer in range(args.layers):
        for name, dims in [
            ("w", [1, gates * args.units, depth]),
            ("r", [1, gates * args.units, args.units]),
            ("b", [1, 2 * gates * args.units]),
        ]:
            numbers = RANDOM.uniform(-limit, limit, dims).astype(np.float32)
            weights.append(numpy_helper.from_array(numbers, f"{name}{layer}"))
        before = [f"{s}{layer}" for s in names] if streaming else []
        after = [f"{s}{layer}_next" for s in names] if streaming else []
        inputs += [_value(name, [1, args.batch, args.units]) for name in before]
        outputs += [_value(name, [1, args.batch, args.units]) for name in after]
        operands = [
            below,
            f"w{layer}",
            f"r{layer}",
            f"b{layer}",
            "lengths" if args.lengths else "",
            *before,
        ]
        above = "y" if layer + 1 == args.layers else f"y{layer}"
        nodes.append(helper.make_node(operator, operands, [f"all{layer}", *after], **attributes))
        nodes.append(helper.make_node("Squeeze", [f"all{layer}", "direction"], [above]))
        below, depth = above, args.units
    return _model(nodes, inputs, outputs, weights)


def feed(args):
    """Numbers for the inputs `x` and `lengths`."""
    numbers = {"x": RANDOM.standard_normal((args.steps, args.batch, args.inputs), dtype=np.float32)}
    if args.lengths:
        numbers["lengths"] = np.array(args.lengths, np.int32)
    return numbers


def square_product(side):
    """A matmul of two square matrices, `x` and a constant one, to `y`, and numbers for `x`."""
    numbers = RANDOM.random((side, side), dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    dims = [side, side]
    weights = [numpy_helper.from_array(numbers, "w")]
    return _model([node], [_value("x", dims)], [_value("y", dims)], weights), numbers


def _value(name, dims, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, dims)


def _model(nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "workload", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    return made
