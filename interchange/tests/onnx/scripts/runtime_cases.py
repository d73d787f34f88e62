"""Makes tests of RNN, GRU and LSTM whose expected outputs ONNX Runtime computes: limits of the
gates, activations with parameters, peepholes, coupled gates, `linear_before_reset`, lengths from 0,
one step, one row, `layout`, directions with different activations.

    python runtime_cases.py FOLDER        (needs `onnx` and `onnxruntime`)

ONNX Runtime has no `layout = 1`: the expected outputs are those of `layout = 0`, transposed.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from layout import write_test

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
DIRECTIONS = ["forward", "reverse", "bidirectional"]


def weights(rng, op, directions, inputs, units, peepholes):
    gates = GATES[op]
    draw = lambda *shape: rng.uniform(-0.9, 0.9, shape).astype(np.float32)
    arrays = {
        "W": draw(directions, gates * units, inputs),
        "R": draw(directions, gates * units, units),
        "B": draw(directions, 2 * gates * units),
    }
    if peepholes:
        arrays["P"] = draw(directions, 3 * units)
    return arrays


def case(
    folder,
    op,
    name,
    steps=4,
    batch=3,
    inputs=3,
    units=5,
    direction="forward",
    lengths=None,
    states=False,
    peepholes=False,
    bias=True,
    layout=0,
    **attributes,
):
    name = f"{op.lower()}_{name}"
    rng = np.random.default_rng(sum(map(ord, name)))
    directions = 2 if direction == "bidirectional" else 1
    arrays = weights(rng, op, directions, inputs, units, peepholes)
    given = {"X": rng.uniform(-2, 2, (steps, batch, inputs)).astype(np.float32)}
    if lengths is not None:
        given["sequence_lens"] = np.array(lengths, np.int32)
    if states:
        for state in ["initial_h"] + ["initial_c"] * (op == "LSTM"):
            shape = (directions, batch, units)
            given[state] = rng.uniform(-1, 1, shape).astype(np.float32)
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    known = arrays.keys() | given.keys()
    if not bias:
        known -= {"B"}
    names = [n if n in known else "" for n in order]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h"] + ["Y_c"] * (op == "LSTM")

    def model(layout):
        more = {"layout": 1} if layout else {}
        node = helper.make_node(
            op, names, outputs, name=name, hidden_size=units, direction=direction,
            **attributes, **more,
        )
        ports = [
            helper.make_tensor_value_info(
                n, TensorProto.INT32 if a.dtype == np.int32 else TensorProto.FLOAT,
                [None] * a.ndim)
            for n, a in given.items()
        ]
        results = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * (4 if n == "Y" else 3))
            for n in outputs
        ]
        constants = [
            numpy_helper.from_array(a, n) for n, a in arrays.items() if n in known
        ]
        graph = helper.make_graph([node], name, ports, results, constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8
        )
        onnx.checker.check_model(made)
        return made

    session = onnxruntime.InferenceSession(
        model(0).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(outputs, given)
    if layout:
        given = {
            n: a if n == "sequence_lens" else np.ascontiguousarray(a.swapaxes(0, 1))
            for n, a in given.items()
        }
        expected = [
            np.ascontiguousarray(a.transpose(2, 0, 1, 3) if a.ndim == 4 else a.swapaxes(0, 1))
            for a in expected
        ]
    write_test(folder / name, model(layout), [(list(given.values()), expected)])


def common(folder, op):
    """What all three operators have."""
    functions = FUNCTIONS[op]
    for direction in DIRECTIONS:
        case(folder, op, direction, direction=direction, states=True)
        case(folder, op, f"lengths_{direction}", direction=direction, states=True,
             lengths=[4, 1, 2])
    case(folder, op, "lengths_zero", lengths=[0, 4, 2])
    case(folder, op, "lengths_zero_states", lengths=[2, 0, 4], states=True,
         direction="bidirectional")
    case(folder, op, "one_step", steps=1, states=True)
    case(folder, op, "one_row", batch=1, direction="bidirectional")
    case(folder, op, "odd_sizes", steps=7, batch=2, inputs=1, units=9)
    case(folder, op, "no_bias", bias=False)
    case(folder, op, "clip", clip=0.7, states=True)
    case(folder, op, "clip_bidirectional", clip=0.4, direction="bidirectional",
         lengths=[3, 4, 1])
    for layout in [1]:
        case(folder, op, "layout", layout=layout, states=True)
        case(folder, op, "layout_bidirectional", layout=layout, states=True,
             direction="bidirectional", lengths=[4, 2, 3])
    parameters = [
        ("relu", "Relu", None, None),
        ("leaky", "LeakyRelu", 0.3, None),
        ("thresholded", "ThresholdedRelu", 0.2, None),
        ("scaled", "ScaledTanh", 1.3, 0.6),
        ("hard", "HardSigmoid", 0.3, 0.4),
        ("elu", "Elu", 0.7, None),
        ("affine", "Affine", 0.5, 0.1),
        ("softsign", "Softsign", None, None),
    ]
    for name, function, alpha, beta in parameters:
        names = ["Sigmoid"] * (functions > 1) + [function] * max(functions - 1, 1)
        more = {}
        if alpha is not None:
            more["activation_alpha"] = [alpha] * max(functions - 1, 1)
        if beta is not None:
            more["activation_beta"] = [beta] * max(functions - 1, 1)
        case(folder, op, f"activation_{name}", activations=names, states=True, **more)
    case(folder, op, "hard_gates", activations=["HardSigmoid"] + ["Tanh"] * (functions - 1),
         activation_alpha=[0.25], activation_beta=[0.5], states=True)
    ahead = ["Sigmoid", "Tanh", "Tanh"][-functions:] if functions > 1 else ["Tanh"]
    back = ["HardSigmoid", "LeakyRelu", "Elu"][:functions]
    alphas = [0.21, 0.1, 0.9][:functions]
    case(folder, op, "mixed_directions", direction="bidirectional", states=True,
         activations=ahead[:functions] + back, activation_alpha=alphas, activation_beta=[0.45])


def main(folder):
    for op in GATES:
        common(folder, op)
    for reset in (0, 1):
        for direction in DIRECTIONS:
            case(folder, "GRU", f"reset_{reset}_{direction}", direction=direction, states=True,
                 linear_before_reset=reset, lengths=[2, 4, 0])
        case(folder, "GRU", f"reset_{reset}_clip", linear_before_reset=reset, clip=0.5,
             states=True)
    for direction in DIRECTIONS:
        case(folder, "LSTM", f"peepholes_{direction}", peepholes=True, direction=direction,
             states=True, lengths=[1, 4, 3])
    case(folder, "LSTM", "peepholes_clip", peepholes=True, clip=0.5, states=True)
    case(folder, "LSTM", "coupled", input_forget=1, states=True)
    case(folder, "LSTM", "coupled_peepholes", input_forget=1, peepholes=True, states=True)
    print(f"{len(list(folder.iterdir()))} tests")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
