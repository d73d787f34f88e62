"""A workload of `cargo xtask bench` in PyTorch, to time beside it: prints one line of JSON, two for ragged rows (packed, padded).

`cargo xtask bench --compare torch` calls it with the sizes. Alone:

    python bench/rnn_torch.py --workload W3_lstm512 --mode fwd --cell lstm --batch 64 --steps 100 --inputs 512 --units 512

Needs torch. On a GPU (--device cuda) this is cuDNN.
"""
import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser()
parser.add_argument("--workload", default="alone")
parser.add_argument("--mode", choices=["fwd", "train", "stream", "memory"], default="fwd")
parser.add_argument("--cell", choices=["rnn_tanh", "lstm", "gru"], default="lstm")
for name, default in [("threads", 1), ("layers", 1), ("batch", 1), ("steps", 1), ("inputs", 1), ("units", 1), ("classes", 0)]:
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--input-grad", action="store_true")
parser.add_argument("--lengths", default="")
parser.add_argument("--flops", type=float, default=0.0)
parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
parser.add_argument("--precision", choices=["exact", "tf32", "bf16"], default="exact")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(args.threads)
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "exact"
device = torch.device(args.device)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        kind = {"rnn_tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[args.cell]
        self.rnn = kind(args.inputs, args.units, args.layers)
        self.head = nn.Linear(args.units, args.classes) if args.classes else None

    def forward(self, x, lengths):
        if lengths is None:
            return self.rnn(x)[0]
        packed = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))[0]
        return pad_packed_sequence(packed)[0]


def wait():
    if args.device == "cuda":
        torch.cuda.synchronize()


def timed(f):
    start = time.perf_counter()
    f()
    wait()
    return time.perf_counter() - start


def repeat(f):
    start, warm = time.perf_counter(), 0
    while warm < 2 or (time.perf_counter() - start < 1.5 and warm < 30):
        timed(f)
        warm += 1
    start, times = time.perf_counter(), []
    while len(times) < 5 or (time.perf_counter() - start < 6 and len(times) < 100):
        times.append(timed(f))
    return times


def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def report(peer, times, **more):
    median = statistics.median(times)
    line = {"peer": peer, "version": torch.__version__, "workload": args.workload, "mode": args.mode, "threads": args.threads,
            "median_s": median, "gflops": args.flops / median / 1e9, "repeats": len(times)}
    print(json.dumps(line | more), flush=True)


network = Network().to(device)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
labels = torch.arange(args.batch, device=device) * 7 % args.classes if args.classes else None


def train(x, lengths=None):
    x.grad = None
    optimizer.zero_grad(set_to_none=True)
    y = network(x, lengths)
    loss = nn.functional.cross_entropy(network.head(y[-1]), labels) if network.head else y.mean()
    loss.backward()
    optimizer.step()


def inputs(steps):
    gradient = args.input_grad and args.mode in ("train", "memory")
    return torch.randn(steps, args.batch, args.inputs, device=device, requires_grad=gradient)


if args.mode == "stream":
    x, state = inputs(1), None
    with torch.inference_mode():
        def step():
            global state
            state = network.rnn(x, state)[1]
        for _ in range(1000):
            timed(step)
        times = sorted(timed(step) for _ in range(5000))
    report("torch", times, p50_us=times[2500] * 1e6, p99_us=times[4950] * 1e6)
elif args.mode == "memory":
    train(inputs(2))
    base = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    x = inputs(args.steps)
    times = [timed(lambda: train(x))]
    report("torch", times, peak_increase_mib=(status("VmHWM") - base) / 1024)
else:
    x = inputs(args.steps)
    ways = [("torch", None)]
    if args.lengths:
        ways = [("torch", torch.tensor([int(n) for n in args.lengths.split(",")])), ("torch-padded", None)]
    for peer, lengths in ways:
        if args.mode == "train":
            times = repeat(lambda: train(x, lengths))
        else:
            with torch.inference_mode():
                times = repeat(lambda: network(x, lengths))
        report(peer, times, min_s=min(times), max_s=max(times))
