"""The accuracy of a trained LSTM in ONNX Runtime, with weights in f32 and quantized to 8 bits.

    python bench/quantized_onnxruntime.py char_rnn PARAMS [data/moby-dick.txt]
    python bench/quantized_onnxruntime.py mnist CHECKPOINT FOLDER

PARAMS is the file of `char_rnn --save PARAMS`, CHECKPOINT one of `mnist --cell lstm --save ..`.
Prints bits per character on the last tenth of the text, or the fraction of MNIST's test images (in
FOLDER) that are classified correctly. Needs numpy, onnx, onnxruntime and safetensors.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from lstm_quantization import quantize_lstms
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


def session(kernel, bias, inputs, quantized):
    """The LSTM of a kernel `[inputs + units, 4 units]` with the gates i, j, f, o and a forget bias
    of 1."""
    units = kernel.shape[1] // 4
    i, j, f, o = range(4)

    def gates(matrix):
        parts = np.split(matrix, 4, axis=-1)
        return np.concatenate([parts[gate] for gate in (i, o, f, j)], axis=-1)

    shifted = bias.copy()
    shifted[2 * units : 3 * units] += 1.0
    both = np.concatenate([gates(shifted), np.zeros(4 * units)])
    weights = {"w": gates(kernel[:inputs]).T, "r": gates(kernel[inputs:]).T, "b": both}
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(x[None], np.float32), name)
        for name, x in weights.items()
    ]
    names = ["x", "w", "r", "b", "", "h", "c"]
    node = helper.make_node("LSTM", names, ["y", "h_next", "c_next"], hidden_size=units)
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    state = [1, "batch", units]
    graph = helper.make_graph(
        [node],
        "lstm",
        [value("x", ["steps", "batch", inputs]), value("h", state), value("c", state)],
        [value("y", ["steps", 1, "batch", units]), value("h_next", state), value("c_next", state)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if quantized:
        model = quantize_lstms(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def found(params, end):
    names = [name for name in params if name.endswith(end) and "slot/" not in name]
    assert len(names) == 1, (end, names)
    return params[names[0]]


def zero_state(lstm, batch):
    units = lstm.get_inputs()[1].shape[2]
    return [np.zeros((1, batch, units), np.float32) for _ in range(2)]


def char_rnn(params, text, quantized):
    embedding = found(params, "embedding")
    lstm = session(
        found(params, "cell/kernel"), found(params, "cell/bias"), embedding.shape[1], quantized
    )
    text = Path(text).read_text(encoding="utf-8")
    known = {symbol: i for i, symbol in enumerate(sorted(set(text)))}
    ids = np.array([known[symbol] for symbol in text])
    ids = ids[len(ids) - len(ids) // 10 :]
    batch, steps = 32, 64
    row = (len(ids) - 1) // batch
    h, c = zero_state(lstm, batch)
    losses = []
    for window in range(row // steps):
        at = np.arange(batch)[None, :] * row + window * steps + np.arange(steps)[:, None]
        y, h, c = lstm.run(None, {"x": embedding[ids[at]], "h": h, "c": c})
        logits = y[:, 0] @ found(params, "dense/kernel") + found(params, "dense/bias")
        logits -= logits.max(axis=-1, keepdims=True)
        right = np.take_along_axis(logits, ids[at + 1][..., None], axis=-1)[..., 0]
        losses.append(np.mean(np.log(np.exp(logits).sum(axis=-1)) - right))
    return f"held_out_bits {np.mean(losses) / np.log(2):.4f}"


def mnist(params, folder, quantized):
    def read(name, header):
        files = [Path(folder, name), Path(folder, f"{name}.gz")]
        file = next(file for file in files if file.exists())
        data = gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes()
        return np.frombuffer(data, np.uint8, offset=header)

    images = read("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28).astype(np.float32) / 255
    labels = read("t10k-labels-idx1-ubyte", 8)
    lstm = session(found(params, "cell/kernel"), found(params, "cell/bias"), 28, quantized)
    h, c = zero_state(lstm, len(images))
    y, _, _ = lstm.run(None, {"x": np.ascontiguousarray(images.transpose(1, 0, 2)), "h": h, "c": c})
    logits = y[-1, 0] @ found(params, "dense/kernel") + found(params, "dense/bias")
    return f"test_accuracy {np.mean(logits.argmax(axis=-1) == labels):.4f}"


task, file, *rest = sys.argv[1:]
params = load_file(file)
for quantized in (False, True):
    name = "int8" if quantized else "exact"
    where = rest[0] if rest else "data/moby-dick.txt"
    print(
        f"onnxruntime {name}",
        {"char_rnn": char_rnn, "mnist": mnist}[task](params, where, quantized),
    )
