"""A workload of `cargo xtask bench` in OpenVINO, for comparison: prints one line of JSON.

`cargo xtask bench --compare openvino` runs it with the arguments of rnn_torch.py. Needs openvino
and onnx: OpenVINO reads the ONNX models of ONNX Runtime's workloads. It supports what
rnn_onnxruntime.py supports, except `--precision int8`.
"""

import sys

import common

args = common.arguments()

import numpy as np
import onnx_workload
import openvino

onnx_workload.end_unless_supported(args)
if args.precision == "int8":
    sys.exit()


def compiled(made):
    """Computes in f32: where the CPU has instructions for bfloat16, OpenVINO takes those unless
    told otherwise."""
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": args.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }
    model = core.read_model(made.SerializeToString())
    return core.compile_model(model, "CPU", settings).create_infer_request()


def peak(side=1024):
    """GFLOP/s of a square matmul, the best of several runs, measured as in `cargo xtask bench`."""
    made, numbers = onnx_workload.square_product(side)
    product = compiled(made)
    product.set_tensor("x", openvino.Tensor(numbers))
    times = [common.timed(product.infer) for _ in range(18)]
    return 2 * side**3 / min(times) / 1e9


request = compiled(onnx_workload.layers(args))
for name, numbers in onnx_workload.feed(args).items():
    request.set_tensor(name, openvino.Tensor(numbers))

if args.mode == "stream":
    # Two sets of states alternate: a step reads one and writes the other, so no state is copied.
    names = onnx_workload.states(args)
    shape = (1, args.batch, args.units)
    sets = [
        {name: openvino.Tensor(np.zeros(shape, np.float32)) for name in names} for _ in range(2)
    ]

    def step():
        for name in names:
            request.set_tensor(name, sets[0][name])
            request.set_tensor(f"{name}_next", sets[1][name])
        request.infer()
        sets.reverse()

    times = common.stream(step)
else:
    times = common.repeat(request.infer)
common.report(args, "openvino", openvino.__version__, times, peak_gflops=peak())
