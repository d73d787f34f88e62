"""A workload of `cargo xtask bench` in PyTorch, for comparison. Prints one line of JSON; for ragged rows
two lines (packed, padded).

`cargo xtask bench --compare torch` runs it with the sizes. To run it alone:

    python bench/rnn_torch.py --workload W3_lstm512 --mode fwd --cell lstm --batch 64 --steps 100 --inputs 512 --units 512

Needs torch. On a GPU (--device cuda) it uses cuDNN.
"""
import common

args = common.arguments()

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


def waited(f, *operands):
    """A function that runs `f` and waits for the device."""
    def run():
        f(*operands)
        if args.device == "cuda":
            torch.cuda.synchronize()
    return run


def peak():
    """GFLOP/s of a square matmul, the best of several runs, measured as in `cargo xtask bench`."""
    side = 1024 if args.device == "cpu" else 4096
    x = torch.rand(side, side, device=device)
    with torch.inference_mode():
        times = [common.timed(waited(torch.matmul, x, x)) for _ in range(18)]
    return 2 * side**3 / min(times) / 1e9


def report(peer, times, **more):
    common.report(args, peer, torch.__version__, times, **more)


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

    def step():
        global state
        state = network.rnn(x, state)[1]

    with torch.inference_mode():
        times = common.stream(waited(step))
    report("torch", times, peak_gflops=peak())
elif args.mode == "memory":
    train(inputs(2))
    base = common.status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    x = inputs(args.steps)
    times = [common.timed(waited(train, x))]
    report("torch", times, peak_increase_mib=(common.status("VmHWM") - base) / 1024)
else:
    x = inputs(args.steps)
    ways = [("torch", None)]
    if args.lengths:
        ways = [("torch", torch.tensor(args.lengths)), ("torch-padded", None)]
    for peer, lengths in ways:
        if args.mode == "train":
            times = common.repeat(waited(train, x, lengths))
        else:
            with torch.inference_mode():
                times = common.repeat(waited(network, x, lengths))
        report(peer, times, peak_gflops=peak())
