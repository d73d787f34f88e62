"""Shared by the scripts that `cargo xtask bench --compare` runs: arguments, timing as in
bench/timing.rs, and output.

Import this module before the framework: it limits the framework's threads and pins them to cores.
"""

import argparse
import json
import os
import statistics
import time

from cells import CELLS


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", default="alone")
    parser.add_argument("--mode", choices=["fwd", "train", "stream", "memory"], default="fwd")
    parser.add_argument("--cell", choices=["rnn_tanh", "lstm", "gru", *CELLS], default="lstm")
    for name, default in [
        ("threads", 1),
        ("layers", 1),
        ("batch", 1),
        ("steps", 1),
        ("inputs", 1),
        ("units", 1),
        ("classes", 0),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--input-grad", action="store_true")
    verify = "print results of known weights and inputs (cells of cells.py)"
    parser.add_argument("--verify", action="store_true", help=verify)
    parser.add_argument("--lengths", default="", help="of the rows, comma between")
    parser.add_argument("--flops", type=float, default=0.0, help="of a run, for GFLOP/s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["exact", "tf32", "bf16", "int8"], default="exact")
    args = parser.parse_args()
    args.lengths = [int(n) for n in args.lengths.split(",")] if args.lengths else None
    limit_threads(args.threads, args.device)
    return args


def limit_threads(threads, device="cpu"):
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if device == "cpu" and hasattr(os, "sched_setaffinity"):
        # Has no effect if the caller has already chosen the cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def repeat(f):
    def goes_on(start, done, budget, runs):
        seconds = time.perf_counter() - start
        return seconds < budget and (done < runs or seconds < 0.5)

    start, warm = time.perf_counter(), 0
    while warm < 2 or goes_on(start, warm, 1.5, 30):
        f()
        warm += 1
    start, times = time.perf_counter(), []
    while len(times) < 5 or goes_on(start, len(times), 6, 100):
        times.append(timed(f))
    return sorted(times)


def stream(step):
    for _ in range(1000):
        step()
    return sorted(timed(step) for _ in range(5000))


def report(args, peer, version, times, **more):
    """Prints the line of a measurement. `times` must be sorted."""
    median = statistics.median(times)
    line = {
        "peer": peer,
        "version": version,
        "workload": args.workload,
        "mode": args.mode,
        "threads": args.threads,
        "median_s": median,
        "repeats": len(times),
    }
    if "flops" in args:
        line["gflops"] = args.flops / median / 1e9
    if len(times) > 1:
        line |= {"min_s": times[0], "max_s": times[-1]}
    if args.mode == "stream":
        line |= {"p50_us": median * 1e6, "p99_us": times[len(times) * 99 // 100] * 1e6}
    print(json.dumps(line | more), flush=True)


def known(shapes, args):
    """Weights and inputs that are given by formulas, as in `cargo xtask bench --verify`."""
    import numpy as np

    def weight(at, shape):
        rows, columns = np.indices((1, *shape)[-2:])
        return (0.1 * np.sin(0.7 * rows + 1.3 * columns + at)).astype(np.float32).reshape(shape)

    t, b, i = np.indices((args.steps, args.batch, args.inputs))
    x = np.sin(0.3 * b + 0.2 * t + 0.11 * i).astype(np.float32)
    return [weight(at, shape) for at, shape in enumerate(shapes)], x


def report_known(args, peer, outputs, input_grad, weight_grads):
    """Prints the results of known weights and inputs."""

    def absolute(grads):
        return sum(float(abs(grad).sum()) for grad in grads)

    print(
        json.dumps(
            {
                "peer": peer,
                "verify": args.cell,
                "shape_TBH": list(outputs.shape),
                "sum": float(outputs.sum()),
                "last": outputs[-1, -1].tolist(),
                "dx_abs_sum": absolute([input_grad]),
                "dparams_abs_sum": absolute(weight_grads),
            }
        ),
        flush=True,
    )


def status(key):
    """A value of /proc/self/status in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))
