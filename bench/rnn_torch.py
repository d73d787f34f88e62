"""A workload of `cargo xtask bench` in PyTorch, for comparison. Prints one line of JSON; for ragged
rows two lines (packed, padded); for the cells of cells.py too, whose steps are a loop in Python
(eager, and with each step compiled by torch.compile).

`cargo xtask bench --compare torch` runs it with the sizes. To run it alone:

    python bench/rnn_torch.py --workload W3_lstm512 --mode fwd --cell lstm --batch 64 \\
        --steps 100 --inputs 512 --units 512

Needs torch. On a GPU (--device cuda) it uses cuDNN.
"""

import sys
import types

import common
from cells import CELLS

args = common.arguments()
if args.cell in CELLS and (args.layers > 1 or args.lengths or args.classes):
    sys.exit()

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(args.threads)
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "exact"
device = torch.device(args.device)


class Stepwise(nn.Module):
    """A cell of cells.py in a loop, whose `step` is `eager` or `compiled`."""

    F = types.SimpleNamespace(
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        relu=torch.relu,
        split=lambda x, n: x.chunk(n, -1),
        add_product=torch.addmm,
        layer_norm=lambda v, gamma, beta: nn.functional.layer_norm(
            v, v.shape[-1:], gamma, beta, 1e-12
        ),
    )

    def __init__(self, inputs, units, _layers):
        super().__init__()
        self.units, self.cell = units, CELLS[args.cell]
        shapes = self.cell.shapes(inputs, units)
        self.weights = nn.ParameterList(
            torch.empty(shape).uniform_(-(units**-0.5), units**-0.5) for shape in shapes
        )
        self.eager = lambda rest, part, states: self.cell.step(self.F, rest, part, states)
        self.compiled = torch.compile(self.eager, dynamic=False)
        self.step = self.eager

    def forward(self, x, states=None):
        states = states or (x.new_zeros(x.shape[1], self.units),) * self.cell.states
        parts, rest = self.cell.prepare(self.F, list(self.weights), x)
        outputs = []
        for part in zip(*(part.unbind() for part in parts)):
            states, output = self.step(rest, part, states)
            outputs.append(output)
        return torch.stack(outputs), states


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        kind = {"rnn_tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}.get(args.cell, Stepwise)
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


if args.verify:
    weights, x = common.known([w.shape for w in network.rnn.weights], args)
    x = torch.from_numpy(x).requires_grad_()
    with torch.no_grad():
        for parameter, numbers in zip(network.rnn.weights, weights):
            parameter.copy_(torch.from_numpy(numbers))
    for peer, network.rnn.step in [
        ("torch", network.rnn.eager),
        ("torch-compiled", network.rnn.compiled),
    ]:
        outputs = network(x, None)
        input_grad, *grads = torch.autograd.grad(outputs.mean(), [x, *network.rnn.weights])
        common.report_known(args, peer, outputs.detach(), input_grad, grads)
elif args.mode == "stream":
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
    if args.cell in CELLS:
        ways.append(("torch-compiled", None))
    for peer, lengths in ways:
        if peer == "torch-compiled":
            network.rnn.step = network.rnn.compiled
        try:
            if args.mode == "train":
                times = common.repeat(waited(train, x, lengths))
            else:
                with torch.inference_mode():
                    times = common.repeat(waited(network, x, lengths))
        except torch._dynamo.exc.TorchDynamoException as error:
            # For example without a C++ compiler. The lines before this one stand.
            print(f"{peer}: {error}", file=sys.stderr)
            continue
        report(peer, times, peak_gflops=peak())
