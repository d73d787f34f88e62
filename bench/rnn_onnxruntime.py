"""A workload of `cargo xtask bench` in ONNX Runtime, for comparison: prints one line of JSON.

`cargo xtask bench --compare onnxruntime` runs it with the arguments of rnn_torch.py. Needs
onnxruntime and onnx. It supports only inference on the CPU, of ONNX's own operators; for any other
mode, device or cell it prints nothing. With `--precision int8` the weights of an LSTM are quantized
dynamically, and the name in the line is onnxruntime-int8.
"""

import sys
import tempfile

import common

args = common.arguments()
operators = {"rnn_tanh": ("RNN", 1, "h"), "lstm": ("LSTM", 4, "hc"), "gru": ("GRU", 3, "h")}
if args.mode not in ("fwd", "stream") or args.device != "cpu" or args.cell not in operators:
    sys.exit()

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnx import TensorProto, checker, helper, numpy_helper

operator, gates, states = operators[args.cell]
# The GRU of PyTorch and of the workloads resets after the product.
attributes = {"hidden_size": args.units} | ({"linear_before_reset": 1} if operator == "GRU" else {})
random = np.random.default_rng(0)
streaming = args.mode == "stream"


def value(name, dims, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, dims)


def model():
    """Stacked layers, `x: [T, B, inputs]` to `y: [T, B, units]`. When streaming, states are inputs
    and outputs."""
    limit = args.units**-0.5
    inputs, outputs = (
        [value("x", [args.steps, args.batch, args.inputs])],
        [value("y", [args.steps, args.batch, args.units])],
    )
    nodes, weights = [], [numpy_helper.from_array(np.array([1]), "direction")]
    if args.lengths:
        inputs.append(value("lengths", [args.batch], TensorProto.INT32))
    below, depth = "x", args.inputs
    for layer in range(args.layers):
        for name, dims in [
            ("w", [1, gates * args.units, depth]),
            ("r", [1, gates * args.units, args.units]),
            ("b", [1, 2 * gates * args.units]),
        ]:
            numbers = random.uniform(-limit, limit, dims).astype(np.float32)
            weights.append(numpy_helper.from_array(numbers, f"{name}{layer}"))
        before = [f"{s}{layer}" for s in states] if streaming else []
        after = [f"{s}{layer}_next" for s in states] if streaming else []
        inputs += [value(name, [1, args.batch, args.units]) for name in before]
        outputs += [value(name, [1, args.batch, args.units]) for name in after]
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
    return helper.make_graph(nodes, "workload", inputs, outputs, weights)


def compiled(graph, quantized=False):
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    if quantized:
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/quantized.onnx"
            quantize_dynamic(
                made,
                file,
                op_types_to_quantize=["LSTM"],
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
            made = onnx.load(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    return onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def peak():
    """GFLOP/s of a square matmul, the best of several runs, measured as in `cargo xtask bench`."""
    side = 1024
    numbers = random.random((side, side), dtype=np.float32)
    weights = [numpy_helper.from_array(numbers, "w")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    dims = [side, side]
    product = compiled(
        helper.make_graph([node], "product", [value("x", dims)], [value("y", dims)], weights)
    )
    times = [common.timed(lambda: product.run(["y"], {"x": numbers})) for _ in range(18)]
    return 2 * side**3 / min(times) / 1e9


int8 = args.precision == "int8" and operator == "LSTM"
session = compiled(model(), int8)
feed = {"x": random.standard_normal((args.steps, args.batch, args.inputs), dtype=np.float32)}

if streaming:
    # Two sets of states alternate: a step reads one and writes the other, so no state is copied.
    names = [f"{s}{layer}" for layer in range(args.layers) for s in states]
    zeros = np.zeros((1, args.batch, args.units), np.float32)
    sets = [
        {name: onnxruntime.OrtValue.ortvalue_from_numpy(zeros) for name in names} for _ in range(2)
    ]
    x = onnxruntime.OrtValue.ortvalue_from_numpy(feed["x"])
    y = onnxruntime.OrtValue.ortvalue_from_numpy(
        np.zeros((args.steps, args.batch, args.units), np.float32)
    )
    turns = []
    for old, new in [sets, sets[::-1]]:
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        for name in names:
            binding.bind_ortvalue_input(name, old[name])
            binding.bind_ortvalue_output(f"{name}_next", new[name])
        turns.append(binding)

    def step():
        session.run_with_iobinding(turns[0])
        turns.reverse()

    times = common.stream(step)
else:
    if args.lengths:
        feed["lengths"] = np.array(args.lengths, np.int32)
    times = common.repeat(lambda: session.run(["y"], feed))
common.report(
    args,
    "onnxruntime-int8" if int8 else "onnxruntime",
    onnxruntime.__version__,
    times,
    peak_gflops=peak(),
)
