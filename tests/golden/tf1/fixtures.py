"""The set `fixtures`: one dynamic_rnn after another, optimizers, losses."""

# B, T, I, H and P (the projection) all differ, so that a swapped axis cannot
# go unnoticed.
SIZES = {"B": 4, "T": 6, "I": 3, "H": 7}
P = 2
RAGGED = [4, 0, 6, 1]

# Everything but num_units, which is the case's H.
CELLS = {
    "basic_rnn": {"type": "BasicRNNCell"},
    "basic_rnn_relu": {"type": "BasicRNNCell", "activation": "relu"},
    "basic_lstm": {"type": "BasicLSTMCell"},
    "basic_lstm_fb_relu": {
        "type": "BasicLSTMCell", "forget_bias": 0.3, "activation": "relu"},
    "basic_lstm_concat": {"type": "BasicLSTMCell", "state_is_tuple": False},
    "gru": {"type": "GRUCell"},
    "gru_relu": {"type": "GRUCell", "activation": "relu"},
    "gru_reset_after": {"type": "GRUCell", "reset_after": True},
    "gru_reset_after_relu": {
        "type": "GRUCell", "reset_after": True, "activation": "relu"},
    "lstm": {"type": "LSTMCell"},
    "lstm_fb_softsign": {
        "type": "LSTMCell", "forget_bias": 0.0, "activation": "softsign"},
    "lstm_peephole": {"type": "LSTMCell", "use_peepholes": True},
    "lstm_cell_clip": {"type": "LSTMCell", "cell_clip": 0.4},
    "lstm_proj": {"type": "LSTMCell", "num_proj": P},
    "lstm_peep_clip_proj": {
        "type": "LSTMCell", "use_peepholes": True, "cell_clip": 0.4,
        "num_proj": P, "proj_clip": 0.3, "forget_bias": 0.5},
    "lstm_full_concat": {
        "type": "LSTMCell", "use_peepholes": True, "cell_clip": 0.8,
        "num_proj": P, "proj_clip": 0.5, "state_is_tuple": False},
}
PLAIN = ["basic_rnn", "gru", "lstm"]

LARGER = {"sequence_length": [11, 23, 0, 18], "B": 4, "T": 23, "I": 9,
          "H": 17, "weight_scale": 0.3}

# Not in the groups of all cells.
MORE_CELLS = {"gru_cudnn": {"type": "CudnnCompatibleGRUCell"}}

# (group, cells, options). An option goes into the file header as it stands;
# options left out have TensorFlow's default.
DYNAMIC = [
    ("dynamic_full", PLAIN, {}),
    ("dynamic_full_tm", CELLS, {"time_major": True}),
    ("dynamic_len_init", CELLS,
     {"sequence_length": RAGGED, "initial_state": True}),
    ("dynamic_len_tm_init", PLAIN + ["lstm_peep_clip_proj"],
     {"sequence_length": RAGGED, "initial_state": True, "time_major": True}),
    ("dynamic_len_zero_init", PLAIN + ["gru_cudnn"], {"sequence_length": [2, 6, 1, 3]}),
    ("dynamic_len_int64", ["gru"],
     {"sequence_length": RAGGED, "length_dtype": "int64"}),
    ("dynamic_len_above_T", ["lstm"],
     {"sequence_length": [9, 2, 6, 7], "initial_state": True}),
    ("dynamic_max_len_below_T", ["lstm"],
     {"sequence_length": [3, 5, 0, 2], "initial_state": True, "T": 8}),
    ("dynamic_all_zero_lengths", ["gru", "lstm"],
     {"sequence_length": [0, 0, 0, 0], "initial_state": True}),
    ("dynamic_t1", PLAIN,
     {"sequence_length": [1, 0, 1, 1], "initial_state": True, "T": 1}),
    ("dynamic_b1", ["lstm"],
     {"sequence_length": [5], "initial_state": True, "B": 1}),
    ("dynamic_swap_par1", ["basic_lstm"],
     {"sequence_length": RAGGED, "swap_memory": True,
      "parallel_iterations": 1}),
    # Gates driven far into the flat ends of the sigmoid.
    ("dynamic_saturated", ["lstm_peephole"],
     {"sequence_length": RAGGED, "weight_scale": 1.5, "x_scale": 30.0}),
    ("dynamic_larger", ["gru"], LARGER),
    ("dynamic_larger", ["lstm"], {**LARGER, "initial_state": True}),
]

# case -> (optimizer, options, clip_norm). With the default seed each of these
# norms clips the first steps of its trajectory and not the last ones.
TRAIN = {
    "sgd": ("GradientDescentOptimizer", {"learning_rate": 0.3}, 0.47),
    "momentum": (
        "MomentumOptimizer", {"learning_rate": 0.2, "momentum": 0.8}, 0.44),
    "nesterov": (
        "MomentumOptimizer",
        {"learning_rate": 0.2, "momentum": 0.8, "use_nesterov": True}, 0.55),
    "adam": ("AdamOptimizer", {"learning_rate": 0.02}, 0.5),
    "adam_custom": (
        "AdamOptimizer",
        {"learning_rate": 0.03, "beta1": 0.6, "beta2": 0.95,
         "epsilon": 0.002}, 0.85),
    "rmsprop": ("RMSPropOptimizer", {"learning_rate": 0.05}, 0.362),
    "rmsprop_momentum": (
        "RMSPropOptimizer",
        {"learning_rate": 0.05, "decay": 0.7, "momentum": 0.6,
         "epsilon": 1e-6}, 0.78),
    "rmsprop_centered": (
        "RMSPropOptimizer",
        {"learning_rate": 0.05, "centered": True, "epsilon": 1e-4}, 0.57),
    "adagrad": ("AdagradOptimizer", {"learning_rate": 0.2}, 0.33),
}


def cases():
    """Yield the headers of the set, without the dtype."""
    for group, cells, options in DYNAMIC:
        for cell in cells:
            case = {**SIZES, **options, "driver": "dynamic_rnn"}
            spec = {**CELLS, **MORE_CELLS}[cell]
            case["cell"] = {**spec, "num_units": case["H"]}
            case["name"] = f"{group}/{cell}"
            yield case
    yield {
        **SIZES, "name": "stack_bidirectional_rnn/mixed",
        "driver": "stack_bidirectional_rnn",
        "sequence_length": RAGGED, "initial_state": True,
        "cells_fw": [{"type": "LSTMCell", "num_units": 5},
                     {"type": "GRUCell", "num_units": 4}],
        "cells_bw": [{"type": "GRUCell", "num_units": 2},
                     {"type": "LSTMCell", "num_units": 3}],
    }
    for name, (optimizer, options, clip_norm) in TRAIN.items():
        yield {
            "name": f"train/{name}", "driver": "train",
            "B": 5, "T": 4, "I": 2, "H": 3, "classes": 6, "steps": 5,
            "cell": {"type": "BasicLSTMCell", "num_units": 3},
            "model": "logits = final h . softmax/kernel + softmax/bias; "
                     "loss = mean cross-entropy",
            "optimizer": optimizer, "options": options,
            "clip_norm": clip_norm, "embedding": False,
        }
    yield {
        "name": "losses/sequence_loss", "driver": "losses",
        "B": 3, "T": 6, "V": 5,
        # Shorter than T throughout, so that the mask's default width shows.
        "sequence_length": [4, 0, 3],
    }
