"""Are the accuracies of examples/mnist.rs and of bench/mnist_torch.py without clipping the same
distribution?

    cargo build --release --example mnist
    python bench/mnist_seeds.py --seeds 20 --epochs 10 [--results FILE]

Runs both programs alternately, one seed after the other, and prints a table of the test accuracies
after the last epoch, and two statistics with the fraction of random relabellings of the runs for
which they are at least as large: the difference of the means, and Kolmogorov and Smirnov's largest
distance of the distributions. FILE keeps each finished run; a later call continues there. Needs
numpy, torch, and MNIST in data/mnist.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, default=20)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--results", type=pathlib.Path)
args = parser.parse_args()
ROOT = pathlib.Path(__file__).parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OPTIONS = ["--clip-norm", "0", "--epochs", str(args.epochs)]
PROGRAMS = {
    "recurrent": [TARGET / "release/examples/mnist", "--device", f"cpu:{args.threads}"],
    "torch": [sys.executable, ROOT / "bench/mnist_torch.py", "--threads", str(args.threads)],
}


def accuracy(name, seed):
    command = [*PROGRAMS[name], *OPTIONS, "--seed", str(seed)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    words = out.splitlines()[-1].split()
    return float(words[words.index("test_accuracy") + 1])


def mean_difference(a, b):
    return abs(a.mean() - b.mean())


def largest_distance(a, b):
    at = np.concatenate([a, b])
    below = lambda x: np.searchsorted(np.sort(x), at, side="right") / len(x)
    return np.abs(below(a) - below(b)).max()


def chance(statistic, a, b, draws=20_000):
    """The fraction of relabellings whose statistic is at least that of `a` and `b`."""
    random, all_, found = np.random.default_rng(0), np.concatenate([a, b]), statistic(a, b)
    drawn = (random.permutation(all_) for _ in range(draws))
    return (1 + sum(statistic(x[: len(a)], x[len(a) :]) >= found - 1e-12 for x in drawn)) / (
        draws + 1
    )


results = {name: {} for name in PROGRAMS}
if args.results and args.results.exists():
    results = json.loads(args.results.read_text())
print("| seed | recurrent | PyTorch |\n|---|---|---|")
for seed in range(args.seeds):
    for name in PROGRAMS:
        if str(seed) not in results[name]:
            results[name][str(seed)] = accuracy(name, seed)
            if args.results:
                args.results.write_text(json.dumps(results))
    ours, theirs = (results[name][str(seed)] for name in PROGRAMS)
    print(f"| {seed} | {ours:.4f} | {theirs:.4f} |", flush=True)
a, b = (np.array([each[str(seed)] for seed in range(args.seeds)]) for each in results.values())
for row, f in [("mean", np.mean), ("deviation", lambda x: x.std(ddof=1)), ("lowest", np.min)]:
    print(f"| {row} | {f(a):.4f} | {f(b):.4f} |")
for statistic in (mean_difference, largest_distance):
    print(f"{statistic.__name__} {statistic(a, b):.4f} chance {chance(statistic, a, b):.3f}")
