#!/usr/bin/env python3
"""Write files of torch.save and what their models compute.

    python pytorch.py ../tests/data/pytorch

README.md describes the files.
"""

import collections
import io
import os
import sys
import tarfile

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False

BATCH, TIME, DEPTH, UNITS = 4, 6, 3, 5
LENGTHS = [4, 1, 6, 2]
LAYERS = {
    "rnn": (torch.nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    "lstm": (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "lstm_proj": (torch.nn.LSTM, {"proj_size": 2, "bidirectional": True}),
    "gru": (torch.nn.GRU, {"num_layers": 3}),
    "gru_no_bias": (torch.nn.GRU, {"bias": False, "bidirectional": True}),
}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, (layer, options) in LAYERS.items():
            setattr(self, name, layer(DEPTH, UNITS, batch_first=True, **options))
        self.embedding = torch.nn.Embedding(11, DEPTH)
        self.linear = torch.nn.Linear(UNITS, 2)
        self.norm = torch.nn.LayerNorm(UNITS)
        self.rnn_cell = torch.nn.RNNCell(DEPTH, UNITS)
        self.lstm_cell = torch.nn.LSTMCell(DEPTH, UNITS)
        self.gru_cell = torch.nn.GRUCell(DEPTH, UNITS)


def save_layers(folder):
    torch.manual_seed(7)
    model = Model().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape))
    x = torch.randn(BATCH, TIME, DEPTH)
    computed = {}
    for name in LAYERS:
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS),
                                      batch_first=True, enforce_sorted=False)
        outputs, _ = getattr(model, name)(packed)
        computed[name] = pad_packed_sequence(outputs, batch_first=True)[0]
    ids = torch.tensor([3, 1, 4, 10])
    computed["embedding"] = model.embedding(ids)
    computed["linear"] = model.linear(computed["gru"])
    computed["norm"] = model.norm(computed["gru"])
    h, c = torch.randn(2, BATCH, UNITS)
    computed["rnn_cell"] = model.rnn_cell(x[:, 0], h)
    computed["lstm_cell"] = torch.cat(model.lstm_cell(x[:, 0], (h, c)), 1)
    computed["gru_cell"] = model.gru_cell(x[:, 0], h)
    torch.save(model.state_dict(), f"{folder}/layers.pt")
    torch.save(model.state_dict(), f"{folder}/layers_old.pt",
               _use_new_zipfile_serialization=False)
    np.savez(f"{folder}/layers.npz", x=x, lengths=np.array(LENGTHS, "i4"),
             ids=ids.int(), h=h, c=c,
             **{f"outputs/{k}": v for k, v in computed.items()},
             **{f"weights/{k}": v for k, v in model.state_dict().items()})


def forms():
    """Tensors of every type and layout, in values of several kinds."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = collections.OrderedDict({
        "base": base,
        "transposed": base.T,
        "column": base[:, 2],
        "row": base[3],
        "steps": base[1::2, ::3],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "bool": torch.tensor([True, False]),
    })
    for name in ["float64", "float16", "bfloat16", "int8", "uint8", "int16",
                 "int32", "int64"]:
        tensors[name] = torch.tensor([[1, 0], [100, 3]]).to(getattr(torch, name))
    return {"model": tensors, "epoch": 3, "rate": 0.1, "done": True,
            "text": "text", "list": [torch.ones(1), (torch.zeros(2), None)],
            "empty": {}, "large": 1 << 40, "negative": -5,
            "groups": {0: {"step": torch.tensor(7)}}}


def save_forms(folder):
    value = forms()
    for protocol in [2, 4]:
        torch.save(value, f"{folder}/forms_{protocol}.pt",
                   pickle_protocol=protocol)
    torch.save(value, f"{folder}/forms_old.pt",
               _use_new_zipfile_serialization=False)
    torch.save(torch.ones(3), f"{folder}/alone.pt")
    expected = {f"model.{k}": v.detach() for k, v in value["model"].items()}
    expected["model.bfloat16"] = expected["model.bfloat16"].float()
    expected["list.0"], expected["list.1.0"] = torch.ones(1), torch.zeros(2)
    expected["groups.0.step"] = torch.tensor(7)
    np.savez(f"{folder}/forms.npz", **expected)


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def save_refused(folder):
    torch.save({"a": torch.ones(1), "b": Evil()}, f"{folder}/refused_system.pt")
    torch.save(torch.nn.Linear(2, 2), f"{folder}/refused_module.pt")
    torch.save({"a": torch.sparse_coo_tensor([[0], [1]], [1.0], [2, 2])},
               f"{folder}/refused_sparse.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)),
                   f"{folder}/refused_script.pt")
    with tarfile.open(f"{folder}/refused_tar.pt", "w",
                      format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("sys_info")
        tar.addfile(info, io.BytesIO(b""))


def check(path, expected):
    """Compare a file with arrays: for files written by others."""
    found = torch.load(path, weights_only=True)
    arrays = np.load(expected)
    assert set(found) == set(arrays.files), set(found) ^ set(arrays.files)
    for name in arrays.files:
        assert tuple(found[name].shape) == arrays[name].shape, name
        np.testing.assert_array_equal(found[name].double().numpy(), arrays[name])
    print("equal", len(arrays.files))


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(*sys.argv[2:])
    else:
        os.makedirs(sys.argv[1], exist_ok=True)
        for save in [save_layers, save_forms, save_refused]:
            save(sys.argv[1])
