"""Exports small models of PyTorch, with the outputs that PyTorch computes: a tagger, a classifier,
a stacked bidirectional LSTM, a convolution before an LSTM. Each is exported by `torch.onnx`'s older
exporter, and by the newer one (`dynamo=True`, which needs `onnxscript`).

    python torch_models.py FOLDER        (needs `torch`, `onnx` and `onnxscript`)
"""

import io
import sys
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from layout import write_test


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.output = nn.Linear(7, 4)

    def forward(self, words):
        return self.output(self.lstm(self.embedding(words))[0]).log_softmax(-1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.gru = nn.GRU(6, 7, batch_first=True)
        self.norm = nn.LayerNorm(7)
        self.output = nn.Linear(7, 3)

    def forward(self, words):
        _, state = self.gru(self.embedding(words))
        return torch.softmax(self.output(torch.relu(self.norm(state[-1]))), -1)


class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, bidirectional=True)

    def forward(self, x):
        outputs, (h, c) = self.lstm(x)
        return outputs, h, c


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(3, 6, 3, stride=2, padding=1)
        self.normal = nn.BatchNorm1d(6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.output = nn.Linear(5, 2)

    def forward(self, x):
        x = torch.tanh(self.normal(self.convolution(x))).transpose(1, 2)
        return self.output(self.lstm(x)[0].mean(1))


def models():
    words = torch.randint(0, 11, (3, 5))
    yield "tagger", Tagger(), words, {0: "batch", 1: "time"}
    yield "classifier", Classifier(), words, {0: "batch", 1: "time"}
    yield "stacked", Stacked(), torch.randn(4, 3, 3), {0: "time", 1: "batch"}
    yield "convolved", Convolved(), torch.randn(3, 3, 9), {0: "batch", 2: "time"}


def another(inputs, axes):
    """Inputs with another batch and another number of steps."""
    dims = [n + 1 if axis in axes else n for axis, n in enumerate(inputs.shape)]
    return torch.randint(0, 11, dims) if inputs.dtype == torch.int64 else torch.randn(dims)


def main(folder):
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    for name, model, inputs, axes in models():
        model.eval()
        for parameter in model.buffers():
            if parameter.dtype == torch.float32:
                parameter.data.uniform_(0.5, 1.5)
        for dynamo in (False, True):
            path = folder / f"{name}_{'dynamo' if dynamo else 'script'}.onnx"
            options = {"dynamic_shapes": ({a: torch.export.Dim.DYNAMIC for a in axes},)}
            if not dynamo:
                options = {"input_names": ["x"], "dynamic_axes": {"x": axes}}
            made = io.BytesIO()
            try:
                torch.onnx.export(model, (inputs,), made, dynamo=dynamo, **options)
            except Exception as error:  # the newer exporter fails for some
                print(f"{path.stem}: not exported: {type(error).__name__}: {str(error)[:200]}")
                continue
            sets = []
            for given in (inputs, another(inputs, axes)):
                with torch.no_grad():
                    expected = model(given)
                expected = expected if isinstance(expected, tuple) else (expected,)
                sets.append(([given.numpy()], [e.numpy() for e in expected]))
            made = onnx.load_from_string(made.getvalue())
            del made.metadata_props[:]
            for node in made.graph.node:
                node.doc_string = ""
                del node.metadata_props[:]
            write_test(folder / path.stem, made, sets)
            print(path.stem, sorted({node.op_type for node in made.graph.node}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
