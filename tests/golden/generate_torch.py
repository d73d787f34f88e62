#!/usr/bin/env python3
"""Write golden files of what PyTorch computes.

    python generate_torch.py fixtures --only dynamic
    python generate_torch.py convert --only torch

Every case is run twice, in f64 and in f32, from one random draw. README.md
describes the files.
"""

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common import main

torch.set_num_threads(1)
# Its sums depend on the machine.
torch.backends.mkldnn.enabled = False

SIZES = {"B": 4, "T": 6, "I": 3, "H": 7}
# PyTorch takes no empty rows.
RAGGED = [4, 1, 6, 2]

# name -> (class in torch.nn, options of its constructor).
LAYERS = {
    "rnn": ("RNN", {}),
    "rnn_relu_deep": ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    "lstm": ("LSTM", {}),
    "lstm_no_bias": ("LSTM", {"bias": False}),
    "lstm_proj": ("LSTM", {"proj_size": 2}),
    "lstm_deep_both_ways": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "lstm_deep_both_ways_proj": (
        "LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    "gru": ("GRU", {}),
    "gru_no_bias": ("GRU", {"bias": False}),
    "gru_deep": ("GRU", {"num_layers": 3}),
    "gru_deep_both_ways": ("GRU", {"num_layers": 2, "bidirectional": True}),
}


def all_cases():
    """Yield (run function, header) of every case; headers lack the dtype."""
    yield run_gru, {
        **SIZES, "name": "dynamic_len_init/gru_torch", "driver": "dynamic_rnn",
        "cell": {"type": "GRUCell", "num_units": 7, "reset_after": True},
        "sequence_length": RAGGED, "initial_state": True}
    for name, (layer, options) in LAYERS.items():
        yield run_layer, {
            **SIZES, "name": f"torch/{name}", "driver": "torch",
            "layer": layer, "options": options, "sequence_length": RAGGED}


def run_packed(module, x, lengths, state):
    """(padded outputs, final state) over rows of several lengths."""
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True,
                                  enforce_sorted=False)
    outputs, state = module(packed, state)
    return pad_packed_sequence(outputs, batch_first=True,
                               total_length=x.shape[1])[0], state


def run_layer(case, draw):
    """A layer of torch.nn with its state dict, for the converters."""
    options = case["options"]
    x = torch.tensor(draw.normal([case["B"], case["T"], case["I"]]))
    module = getattr(torch.nn, case["layer"])(
        case["I"], case["H"], batch_first=True, dtype=x.dtype, **options)
    module.load_state_dict(
        {key: torch.tensor(draw.normal(list(value.shape), 0.5))
         for key, value in module.state_dict().items()})
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", 0))
    states = {"h": [rows, case["B"], options.get("proj_size") or case["H"]]}
    if case["layer"] == "LSTM":
        states["c"] = [rows, case["B"], case["H"]]
    initial = {key: torch.tensor(draw.normal(shape, 0.5))
               for key, shape in states.items()}
    as_given = tuple(initial.values()) if "c" in initial else initial["h"]
    with torch.no_grad():
        outputs, final = run_packed(module, x, case["sequence_length"],
                                    as_given)
    final = final if "c" in initial else (final,)
    tensors = {"input/x": x, "outputs": outputs,
               **{f"weights/{k}": v for k, v in module.state_dict().items()},
               **{f"initial_state/{k}": v for k, v in initial.items()},
               **{f"final_state/{k}": v for k, v in zip(initial, final)}}
    return {key: value.numpy() for key, value in tensors.items()}


def run_gru(case, draw):
    """torch.nn.GRU, its weights under the names of TensorFlow's
    CudnnCompatibleGRUCell."""
    batch, time, depth, n = (case[key] for key in "BTIH")
    gates = "weights/rnn/gru_cell/gates"
    candidate = "weights/rnn/gru_cell/candidate"
    weights = {
        f"{gates}/kernel": draw.normal([depth + n, 2 * n], 0.5),
        f"{gates}/bias": draw.normal([2 * n], 0.5),
        f"{candidate}/input_projection/kernel": draw.normal([depth, n], 0.5),
        f"{candidate}/input_projection/bias": draw.normal([n], 0.5),
        f"{candidate}/hidden_projection/kernel": draw.normal([n, n], 0.5),
        f"{candidate}/hidden_projection/bias": draw.normal([n], 0.5),
    }
    given = {"input/x": draw.normal([batch, time, depth]),
             "initial_state": draw.normal([batch, n], 0.5)}
    leaves = {key: torch.tensor(value, requires_grad=True)
              for key, value in given.items()}

    kernel, bias, kernel_x, bias_x, kernel_h, bias_h = weights.values()
    # Both have the columns r, u, candidate. PyTorch adds two biases.
    parameters = {
        "weight_ih_l0": np.concatenate([kernel[:depth], kernel_x], 1).T,
        "weight_hh_l0": np.concatenate([kernel[depth:], kernel_h], 1).T,
        "bias_ih_l0": np.concatenate([bias / 2, bias_x]),
        "bias_hh_l0": np.concatenate([bias / 2, bias_h]),
    }
    module = torch.nn.GRU(depth, n, batch_first=True,
                          dtype=leaves["input/x"].dtype)
    module.load_state_dict({key: torch.tensor(value)
                            for key, value in parameters.items()})
    outputs, state = run_packed(module, leaves["input/x"],
                                case["sequence_length"],
                                leaves["initial_state"][None])

    results = {"outputs": outputs, "final_state": state[0]}
    weightings = {f"R/{key}": draw.normal(list(value.shape))
                  for key, value in results.items()}
    loss = sum((value * torch.tensor(weightings[f"R/{key}"])).sum()
               for key, value in results.items())
    loss.backward()

    gradients = {f"grad/{key}": leaf.grad for key, leaf in leaves.items()}
    ih, hh, bias_ih, bias_hh = (module.get_parameter(key).grad
                                for key in parameters)
    ih, hh = ih.T, hh.T
    columns = slice(0, 2 * n), slice(2 * n, 3 * n)
    gradients.update(zip((f"grad/{key}" for key in weights), (
        torch.cat([ih[:, columns[0]], hh[:, columns[0]]]),
        bias_ih[columns[0]],
        ih[:, columns[1]], bias_ih[columns[1]],
        hh[:, columns[1]], bias_hh[columns[1]])))

    computed = {**results, "loss": loss, **gradients}
    lengths = np.array(case["sequence_length"], np.int32)
    return {**weights, **given, **weightings, "sequence_length": lengths,
            **{key: value.detach().numpy() for key, value in computed.items()}}


if __name__ == "__main__":
    main(__doc__, all_cases, {"torch_version": torch.__version__})
