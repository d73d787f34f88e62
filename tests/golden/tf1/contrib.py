"""Cells and wrappers of tf.contrib, which only TensorFlow 1 has."""

SIZES = {"B": 3, "T": 5, "I": 4, "H": 5}
START = {"initial_state": True, "sequence_length": [3, 0, 5]}
SQUARE = {"I": SIZES["H"]}

# TensorFlow has these in f32 alone.
F32 = {"dtype": "f32"}
GRID = {"num_units": 3, "feature_size": 3, "frequency_skip": 2}


def full(**options):
    return {"cell_clip": 0.9, "num_proj": 3, "proj_clip": 0.6,
            "use_peepholes": True, **options}


# name -> (class, options, options of the case).
CELLS = {
    "bidirectional_grid_lstm": (
        "BidirectionalGridLSTMCell",
        {**GRID, "num_frequency_blocks": [3], "backward_slice_offset": 1},
        {"I": 7}),
    "cfn": ("CFNCell", {"units": 5}, {}),
    "conv1d_lstm": (
        "ConvLSTMCell", {"conv_ndims": 1, "input_shape": [4, 2],
                         "kernel_shape": [3], "output_channels": 2},
        {"input": "image", "image": [4, 2]}),
    "conv2d_lstm": (
        "ConvLSTMCell", {"conv_ndims": 2, "input_shape": [3, 4, 2],
                         "kernel_shape": [2, 3], "output_channels": 2},
        {"input": "image", "image": [3, 4, 2], "T": 3,
         "sequence_length": [2, 0, 3]}),
    "coupled": ("CoupledInputForgetGateLSTMCell", {}, {}),
    "coupled_layer_norm": (
        "CoupledInputForgetGateLSTMCell", {"layer_norm": True}, F32),
    "coupled_peep_proj": (
        "CoupledInputForgetGateLSTMCell",
        {"forget_bias": 0.5, "num_proj": 3, "proj_clip": 0.3,
         "use_peepholes": True}, {}),
    "glstm": ("GLSTMCell", {"num_units": 6, "number_of_groups": 2}, {}),
    "glstm_proj": (
        "GLSTMCell",
        {"num_units": 6, "number_of_groups": 2, "num_proj": 4}, {}),
    "grid_lstm": (
        "GridLSTMCell", {**GRID, "num_frequency_blocks": [3]}, {"I": 7}),
    "grid_lstm_blocks_peep": (
        "GridLSTMCell",
        {**GRID, "num_frequency_blocks": [1, 2], "use_peepholes": True,
         "start_freqindex_list": [0, 2], "end_freqindex_list": [3, 7]},
        {"I": 7}),
    "grid_lstm_peep_couple_share": (
        "GridLSTMCell",
        {**GRID, "num_frequency_blocks": [3], "use_peepholes": True,
         "cell_clip": 0.8, "couple_input_forget_gates": True,
         "share_time_frequency_weights": True}, {"I": 7}),
    "gru_block": ("GRUBlockCell", {}, F32),
    "gru_block_v2": ("GRUBlockCell", {"v2": True}, F32),
    "indrnn": ("IndRNNCell", {}, {}),
    "indy_gru": ("IndyGRUCell", {}, {}),
    "indy_lstm": ("IndyLSTMCell", {}, {}),
    "intersection_in_proj": ("IntersectionRNNCell", {"num_in_proj": 5}, {}),
    "intersection_same": ("IntersectionRNNCell", {}, SQUARE),
    "layer_norm_basic_lstm": ("LayerNormBasicLSTMCell", {}, {}),
    "layer_norm_basic_lstm_off": (
        "LayerNormBasicLSTMCell", {"layer_norm": False}, {}),
    "layer_norm_lstm": ("LayerNormLSTMCell", full(layer_norm=True), F32),
    "lstm_block": ("LSTMBlockCell", {}, F32),
    "lstm_block_peep_clip": (
        "LSTMBlockCell", {"cell_clip": 0.4, "use_peephole": True}, F32),
    "minimal_rnn": ("MinimalRNNCell", {"units": 5}, {}),
    "nas": ("NASCell", {}, {}),
    "nas_proj_bias": ("NASCell", {"num_proj": 3, "use_bias": True}, {}),
    "phased_lstm": (
        "PhasedLSTMCell", {"leak": 0.01}, {"input": "phased", **F32}),
    "phased_lstm_peep": (
        "PhasedLSTMCell", {"leak": 0.01, "use_peepholes": True},
        {"input": "phased", **F32}),
    "sru": ("SRUCell", {}, {}),
    "time_freq_lstm": (
        "TimeFreqLSTMCell",
        {**GRID, "blocks": 3, "cell_clip": 0.8, "use_peepholes": True},
        {"I": 7}),
    "ugrnn": ("UGRNNCell", {}, {}),
    "weight_norm_lstm": ("WeightNormLSTMCell", {}, {}),
    "weight_norm_lstm_full": ("WeightNormLSTMCell", full(), {}),
}

# Without a num_units of their own.
SIZED = ("CFNCell", "ConvLSTMCell", "MinimalRNNCell")

RNN_RELU, GRU, LSTM = (
    {"num_units": 5, **spec} for spec in
    ({"type": "BasicRNNCell", "activation": "relu"},
     {"type": "GRUCell"}, {"type": "LSTMCell"}))

# name -> (class, cell, options, options of the case).
WRAPPERS = {
    "attention_gru": ("AttentionCellWrapper", GRU, {"attn_length": 3}, F32),
    "attention_lstm": (
        "AttentionCellWrapper", LSTM,
        {"attn_length": 2, "attn_size": 4, "attn_vec_size": 6,
         "input_size": 3}, F32),
    "embedding_gru": (
        "EmbeddingWrapper", GRU,
        {"embedding_classes": 7, "embedding_size": 3},
        {"input": "ids", "classes": 7}),
    "highway_gru": ("HighwayWrapper", GRU, {}, {**SQUARE, **F32}),
    "highway_uncoupled_lstm": (
        "HighwayWrapper", LSTM, {"couple_carry_transform_gates": False},
        {**SQUARE, **F32}),
    "input_projection_gru": (
        "InputProjectionWrapper", GRU, {"num_proj": 6}, {}),
    "input_projection_lstm_relu": (
        "InputProjectionWrapper", LSTM,
        {"num_proj": 6, "activation": "relu"}, {}),
    "output_projection_lstm_tanh": (
        "OutputProjectionWrapper", LSTM,
        {"output_size": 3, "activation": "tanh"}, {}),
    "output_projection_rnn": (
        "OutputProjectionWrapper", RNN_RELU, {"output_size": 2}, {}),
}

# name -> (driver, options) of LSTMBlockFusedCell.
FUSED = {
    "lstm_fused": ("fused_block_lstm", {}),
    "lstm_fused_peep_clip": (
        "fused_block_lstm", {"cell_clip": 0.4, "use_peephole": True}),
    "lstm_fused_reversed": ("fused_block_lstm_reversed", {}),
}


def cases():
    """Yield the headers, without the dtype where there are two."""
    base = {**SIZES, **START, "contrib": True, "driver": "dynamic_rnn"}
    for name, (kind, options, more) in CELLS.items():
        cell = {"type": kind, **options}
        if kind not in SIZED:
            cell.setdefault("num_units", base["H"])
        yield {**base, **more, "name": f"contrib/{name}", "cell": cell}
    for name, (kind, cell, options, more) in WRAPPERS.items():
        yield {**base, **more, "name": f"wrapper/{name}",
               "cell": {"type": kind, "cell": cell, **options}}
    for name, (driver, options) in FUSED.items():
        yield {**base, **F32, "driver": driver, "time_major": True,
               "name": f"contrib/{name}",
               "cell": {"num_units": base["H"], **options}}
