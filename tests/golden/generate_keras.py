#!/usr/bin/env python3
"""Write golden files of what the layers of Keras 2 compute.

    python generate_keras.py convert

Every case is run twice, in f64 and in f32, from one random draw. README.md
describes the files.
"""

import os

# oneDNN kernels sum in an order that depends on the machine.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow  # noqa: E402

from common import main  # noqa: E402

SIZES = {"B": 4, "T": 6, "I": 3, "H": 7}

# name -> (class in keras.layers, options of its constructor).
LAYERS = {
    "simple_rnn": ("SimpleRNN", {}),
    "simple_rnn_relu": ("SimpleRNN", {"activation": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm_no_bias": ("LSTM", {"use_bias": False}),
    "lstm_softsign": ("LSTM", {"activation": "softsign"}),
    "gru": ("GRU", {}),
    "gru_no_bias": ("GRU", {"use_bias": False}),
    "gru_reset_before": ("GRU", {"reset_after": False, "activation": "relu"}),
    "gru_reset_before_no_bias": (
        "GRU", {"reset_after": False, "use_bias": False}),
}


def all_cases():
    """Yield (run function, header) of every case; headers lack the dtype."""
    for name, (layer, options) in LAYERS.items():
        yield run_layer, {
            **SIZES, "name": f"keras/{name}", "driver": "keras",
            "layer": layer, "options": options}


def run_layer(case, draw):
    layer = getattr(tensorflow.keras.layers, case["layer"])(
        case["H"], return_sequences=True, return_state=True, dtype=draw.dtype,
        **case["options"])
    x = draw.normal([case["B"], case["T"], case["I"]])
    layer.build(x.shape)
    names = ["kernel", "recurrent_kernel", "bias"]
    values = [draw.normal(value.shape, 0.5) for value in layer.get_weights()]
    layer.set_weights(values)
    states = ["h", "c"] if case["layer"] == "LSTM" else ["h"]
    initial = [draw.normal([case["B"], case["H"]], 0.5) for _ in states]
    outputs, *final = layer(
        x, initial_state=[tensorflow.constant(value) for value in initial])
    return {
        "input/x": x, "outputs": outputs.numpy(),
        **{f"weights/{k}": v for k, v in zip(names, values)},
        **{f"initial_state/{k}": v for k, v in zip(states, initial)},
        **{f"final_state/{k}": v.numpy() for k, v in zip(states, final)}}


if __name__ == "__main__":
    main(__doc__, all_cases, {"tf_version": tensorflow.__version__})
