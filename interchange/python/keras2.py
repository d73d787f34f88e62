#!/usr/bin/env python3
"""Write files of Keras and what their models compute.

    python keras2.py ../tests/data/keras
    python keras2.py check FILE ../tests/data/keras/layers.npz

README.md describes the files.
"""

import os
import sys

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras.src.saving.legacy import hdf5_format  # noqa: E402
from tensorflow.keras import layers  # noqa: E402

BATCH, TIME, DEPTH, UNITS = 4, 6, 3, 5
# Without an empty row: Keras's answer for it is the initial state.
LENGTHS = [4, 1, 6, 2]


def recurrent():
    both = layers.Bidirectional
    options = {"return_sequences": True}
    return {
        "simple": layers.SimpleRNN(UNITS, name="simple", **options),
        "lstm": layers.LSTM(UNITS, name="lstm", **options),
        "gru": layers.GRU(UNITS, name="gru", **options),
        "gru_before": layers.GRU(UNITS, reset_after=False, name="gru_before",
                                 **options),
        "both": both(layers.LSTM(UNITS, **options), name="both"),
        "stack": layers.RNN([layers.LSTMCell(UNITS), layers.LSTMCell(UNITS + 2)],
                            name="stack", **options),
    }


def model():
    x = layers.Input([TIME, DEPTH], name="x")
    mask = layers.Input([TIME], dtype="bool", name="mask")
    ids = layers.Input([TIME], dtype="int32", name="ids")
    images = layers.Input([TIME, 6, 4, 2], name="images")
    outputs = {name: layer(x, mask=mask) for name, layer in recurrent().items()}
    outputs["embedding"] = layers.Embedding(11, DEPTH, name="embedding")(ids)
    outputs["dense"] = layers.Dense(2, name="dense")(outputs["lstm"])
    outputs["conv"] = layers.ConvLSTM2D(
        3, [3, 3], padding="same", recurrent_activation="sigmoid",
        return_sequences=True, name="conv")(images)
    return tf.keras.Model([x, mask, ids, images], outputs)


def save(folder):
    rng = np.random.RandomState(7)
    m = model()
    m.set_weights([0.5 * rng.standard_normal(w.shape) for w in m.get_weights()])
    x = rng.standard_normal([BATCH, TIME, DEPTH]).astype("f4")
    mask = np.arange(TIME) < np.array(LENGTHS)[:, None]
    ids = rng.randint(0, 11, [BATCH, TIME]).astype("i4")
    images = rng.standard_normal([BATCH, TIME, 6, 4, 2]).astype("f4")
    computed = m([x, mask, ids, images])
    m.save_weights(f"{folder}/layers.h5")
    m.save_weights(f"{folder}/layers.weights.h5")
    m.save(f"{folder}/whole.h5")
    m.save(f"{folder}/whole.keras")
    np.savez(f"{folder}/layers.npz", x=x, lengths=np.array(LENGTHS, "i4"),
             ids=ids, images=images,
             **{f"outputs/{k}": v.numpy() for k, v in computed.items()},
             **{f"weights/{v.name[:-2]}": v.numpy() for v in m.weights})


def save_layouts(folder):
    """Datasets in every layout that h5py writes, and every type."""
    rng = np.random.RandomState(5)
    wide = rng.standard_normal([40, 30]).astype("f4")
    for version in ["earliest", "latest"]:
        with h5py.File(f"{folder}/layouts_{version}.h5", "w",
                       libver=version) as file:
            file["contiguous"] = wide
            create = file.create_dataset
            create("chunked", data=wide, chunks=(7, 11))
            create("gzip", data=wide, chunks=(16, 30), compression="gzip")
            create("shuffle", data=wide, chunks=(16, 8), compression="gzip",
                   shuffle=True, fletcher32=True)
            create("growing", data=wide, maxshape=(None, None), chunks=(8, 8))
            create("unwritten", [3, 2], "f4", fillvalue=1.5)
            for name in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2",
                         "u4", "u8", ">f4", ">f8", ">i4"]:
                file[f"types/{name}"] = np.arange(6, dtype=name).reshape(2, 3)
            file["types/scalar"] = 2.5
            file["types/text"] = "text"
            for i in range(40):
                file[f"many/{i}"] = np.full([1], i, "i4")
    np.savez(f"{folder}/layouts.npz", wide=wide)


def save_checkpoint(folder):
    """A checkpoint of Python objects."""
    tf.keras.utils.set_random_seed(7)
    layer = layers.GRU(UNITS)
    layer(tf.zeros([1, 1, DEPTH]))
    tf.train.Checkpoint(layer=layer).write(f"{folder}/objects.ckpt")
    np.savez(f"{folder}/objects.npz", **{
        name: value for name, value in zip(
            ["kernel", "recurrent_kernel", "bias"], layer.get_weights())})


def save_cudnn(folder):
    """Weights of CuDNNLSTM and CuDNNGRU, and what Keras computes after it has
    loaded them into LSTM and GRU."""
    rng = np.random.RandomState(9)
    x = rng.standard_normal([BATCH, TIME, DEPTH]).astype("f4")
    arrays = {"x": x, "lengths": np.full([BATCH], TIME, "i4")}
    for name, layer, gates in [
            ("lstm", layers.LSTM(UNITS, return_sequences=True), 4),
            ("gru", layers.GRU(UNITS, return_sequences=True), 3)]:
        shapes = [[DEPTH, gates * UNITS], [UNITS, gates * UNITS],
                  [2 * gates * UNITS]]
        weights = [rng.standard_normal(s).astype("f4") for s in shapes]
        layer(x)
        layer.set_weights(hdf5_format.preprocess_weights_for_loading(
            layer, weights, original_keras_version="2"))
        arrays[f"outputs/{name}"] = layer(x).numpy()
        for key, value in zip(["kernel", "recurrent_kernel", "bias"], weights):
            arrays[f"{name}/{key}"] = value
    np.savez(f"{folder}/cudnn.npz", **arrays)


def save_activations(folder):
    """Layers whose gates have other activations than the sigmoid."""
    rng = np.random.RandomState(11)
    x = rng.standard_normal([BATCH, TIME, DEPTH]).astype("f4")
    images = rng.standard_normal([BATCH, TIME, 6, 4, 2]).astype("f4")
    arrays = {"x": x, "images": images, "lengths": np.full([BATCH], TIME, "i4")}
    options = {"return_sequences": True, "recurrent_activation": "hard_sigmoid"}
    for name, layer in [
            ("lstm", layers.LSTM(UNITS, **options)),
            ("gru", layers.GRU(UNITS, **options)),
            ("gru_before", layers.GRU(UNITS, reset_after=False, **options)),
            # The layer's default.
            ("conv", layers.ConvLSTM2D(3, [3, 3], padding="same",
                                       return_sequences=True))]:
        inputs = images if name == "conv" else x
        layer(inputs)
        layer.set_weights([rng.standard_normal(w.shape) for w in layer.get_weights()])
        arrays[f"outputs/{name}"] = layer(inputs).numpy()
        names = ["kernel", "recurrent_kernel", "bias"]
        for key, value in zip(names, layer.get_weights()):
            arrays[f"{name}/{key}"] = value
    np.savez(f"{folder}/activations.npz", **arrays)


def check(path, expected):
    """Loads a file of weights into the model, and compares all weights."""
    m = model()
    m.set_weights([np.zeros(w.shape) for w in m.get_weights()])
    # Old files have names of layers, in no order.
    numbered = path.endswith(".weights.h5")
    m.load_weights(path, **({} if numbered else {"by_name": True}))
    arrays = np.load(expected)
    for v in m.weights:
        np.testing.assert_array_equal(v.numpy(), arrays[f"weights/{v.name[:-2]}"], v.name)
    print(f"{len(m.weights)} arrays are equal")


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(*sys.argv[2:])
        sys.exit()
    os.makedirs(sys.argv[1], exist_ok=True)
    for write in [save, save_layouts, save_checkpoint, save_cudnn,
                  save_activations]:
        write(sys.argv[1])
