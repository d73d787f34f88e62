"""A workload of `cargo xtask bench` in ONNX Runtime, for comparison: prints one line of JSON.

`cargo xtask bench --compare onnxruntime` runs it with the arguments of rnn_torch.py. Needs
onnxruntime and onnx. It supports only inference on the CPU, of ONNX's own operators; for any other
mode, device or cell it prints nothing. With `--precision int8` the weights of an LSTM are quantized
dynamically, and the name in the line is onnxruntime-int8.
"""

import common

args = common.arguments()

import numpy as np
import onnx_workload
import onnxruntime
from lstm_quantization import quantize_lstms

onnx_workload.end_unless_supported(args)


def compiled(made):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    return onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def peak(side=1024):
    """GFLOP/s of a square matmul, the best of several runs, measured as in `cargo xtask bench`."""
    made, numbers = onnx_workload.square_product(side)
    product = compiled(made)
    times = [common.timed(lambda: product.run(["y"], {"x": numbers})) for _ in range(18)]
    return 2 * side**3 / min(times) / 1e9


int8 = args.precision == "int8" and args.cell == "lstm"
model = onnx_workload.layers(args)
session = compiled(quantize_lstms(model) if int8 else model)
feed = onnx_workload.feed(args)

if args.mode == "stream":
    # Two sets of states alternate: a step reads one and writes the other, so no state is copied.
    names = onnx_workload.states(args)
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
    times = common.repeat(lambda: session.run(["y"], feed))
common.report(
    args,
    "onnxruntime-int8" if int8 else "onnxruntime",
    onnxruntime.__version__,
    times,
    peak_gflops=peak(),
)
