"""The network of examples/mnist.rs in PyTorch, for comparison.

    python bench/mnist_torch.py --threads 1 --epochs 3

Needs torch and numpy, and MNIST in data/mnist (cargo xtask data mnist). Prints a line per epoch, in
the format of the example.
"""

import argparse
import os
import pathlib
import time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--clip-norm", type=float, default=1.0, help="0: none")
parser.add_argument("--cell", choices=["basic", "lstm", "gru"], default="basic")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import numpy as np
import torch
from torch import nn

ROWS = COLUMNS = 28
UNITS, CLASSES, BATCH = 150, 10, 150

torch.set_num_threads(args.threads)
torch.manual_seed(args.seed)
DATA = (
    pathlib.Path(os.environ.get("RECURRENT_DATA", pathlib.Path(__file__).parent.parent / "data"))
    / "mnist"
)


def read(name, offset):
    return np.fromfile(DATA / name, dtype=np.uint8)[offset:]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        kind = {"basic": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[args.cell]
        self.rnn = kind(COLUMNS, UNITS, batch_first=True)
        self.logits = nn.Linear(UNITS, CLASSES)
        # TensorFlow's initialization: Glorot's limit for one kernel that covers input and state.
        gates = {"basic": 1, "lstm": 4, "gru": 3}[args.cell]
        recurrent = (6 / (COLUMNS + UNITS + gates * UNITS)) ** 0.5
        for name, p in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(p)
            elif name.startswith("rnn"):
                nn.init.uniform_(p, -recurrent, recurrent)
            else:
                nn.init.xavier_uniform_(p)

    def forward(self, images):
        return self.logits(self.rnn(images)[0][:, -1])


def accuracy(model, images, labels):
    with torch.inference_mode():
        hits = [
            (
                model(torch.from_numpy(images[i : i + 1000]) / 255).argmax(1)
                == torch.from_numpy(labels[i : i + 1000])
            ).sum()
            for i in range(0, len(images), 1000)
        ]
    return float(sum(hits)) / len(images)


def load(part):
    images = read(f"{part}-images-idx3-ubyte", 16).reshape(-1, ROWS, COLUMNS)
    return images, read(f"{part}-labels-idx1-ubyte", 8).astype(np.int64)


(images, labels), test = load("train"), load("t10k")
model = Classifier()
adam = torch.optim.Adam(model.parameters(), lr=0.001)
order = np.random.default_rng(args.seed)
for epoch in range(1, args.epochs + 1):
    start = time.perf_counter()
    shuffled = order.permutation(len(images))
    for i in range(0, len(images) - BATCH + 1, BATCH):
        items = shuffled[i : i + BATCH]
        adam.zero_grad(set_to_none=True)
        x = torch.from_numpy(images[items]).float() / 255
        loss = nn.functional.cross_entropy(model(x), torch.from_numpy(labels[items]))
        loss.backward()
        if args.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
        adam.step()
        loss.item()
    seconds = time.perf_counter() - start
    on_train = accuracy(model, images[:10000], labels[:10000])
    print(
        f"epoch {epoch} train_accuracy {on_train:.4f} "
        f"test_accuracy {accuracy(model, *test):.4f} seconds {seconds:.1f}",
        flush=True,
    )
