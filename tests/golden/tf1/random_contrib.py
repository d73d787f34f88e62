"""Random cells and wrappers of tf.contrib."""

from .random_cells import ACTIVATIONS, one_cell

ACTS = {"activation": ACTIVATIONS}
BIAS = {"forget_bias": [0.0, 0.5, 2.0]}
PEEP = {"use_peepholes": [True]}
CLIP = {"cell_clip": [0.3, 0.9]}
PROJ = {"num_proj": [1, 2, 4], "proj_clip": [0.2, 0.6]}
# TensorFlow divides a layer's values by their spread: not by that of one.
NORM = {"layer_norm": [True], "norm_gain": [0.8], "norm_shift": [0.1]}
F32 = {"dtype": "f32"}

# Classes whose options are free of each other: (class, options, case).
FREE = [
    ("CoupledInputForgetGateLSTMCell", {**PEEP, **BIAS, **ACTS, **PROJ}, {}),
    ("CoupledInputForgetGateLSTMCell",
     {**PEEP, **BIAS, **ACTS, **PROJ, **NORM}, F32),
    ("LayerNormLSTMCell", {**PEEP, **CLIP, **BIAS, **ACTS, **PROJ}, {}),
    ("LayerNormLSTMCell",
     {**PEEP, **CLIP, **BIAS, **ACTS, **PROJ, **NORM}, F32),
    ("WeightNormLSTMCell",
     {**PEEP, **CLIP, **BIAS, **ACTS, **PROJ, "norm": [False]}, {}),
    ("LayerNormBasicLSTMCell",
     {**BIAS, **ACTS, "layer_norm": [False], "norm_gain": [0.7],
      "norm_shift": [0.2]}, {}),
    ("NASCell", {"num_proj": [1, 3], "use_bias": [True]}, {}),
    ("UGRNNCell", {**BIAS, **ACTS}, {}),
    ("SRUCell", ACTS, {}),
    ("IndRNNCell", ACTS, {}),
    ("IndyGRUCell", ACTS, {}),
    ("IndyLSTMCell", {**BIAS, **ACTS}, {}),
    ("MinimalRNNCell", ACTS, {}),
    ("CFNCell", ACTS, {}),
    ("GRUBlockCell", {"v2": [True]}, F32),
    ("LSTMBlockCell",
     {**BIAS, **CLIP, "use_peephole": [True]}, F32),
    ("PhasedLSTMCell",
     {**PEEP, "leak": [0.0, 0.01, 0.1], "trainable_ratio_on": [False]},
     {"input": "phased", **F32}),
]


def cell(dice, sizes):
    case = {"driver": "dynamic_rnn", "contrib": True,
            **sizes.options(dynamic=True)}
    special = {"conv": convolution, "grid": grid, "glstm": grouped,
               "intersection": intersection, "time_freq": time_freq}
    kind = dice.pick(list(special) + [None] * 10)
    if kind:
        return {**case, **special[kind](dice, sizes)}
    kind, options, more = dice.pick(FREE)
    units = max(2, sizes["H"]) if "layer_norm" in options else sizes["H"]
    name = "units" if kind in ("MinimalRNNCell", "CFNCell") else "num_units"
    return {**case, **more,
            "cell": {"type": kind, name: units, **dice.some(**options)}}


def intersection(dice, sizes):
    spec = {"type": "IntersectionRNNCell", "num_units": sizes["H"],
            **dice.some(**BIAS)}
    if sizes["I"] != sizes["H"]:
        spec["num_in_proj"] = sizes["H"]
    return {"cell": spec}


def grouped(dice, sizes):
    groups = dice.between(1, 3)
    sizes["I"] = groups * dice.between(1, 4)
    spec = {"type": "GLSTMCell", "num_units": groups * dice.between(1, 4),
            "number_of_groups": groups, **dice.some(**BIAS, **ACTS)}
    if dice.maybe():
        spec["num_proj"] = groups * dice.between(1, 3)
    return {"cell": spec}


def convolution(dice, sizes):
    rank = dice.between(1, 3)
    image = [dice.between(1, 5) for _ in range(rank)] + [dice.between(1, 3)]
    sizes["T"] = min(sizes["T"], 5)
    kind = "ConvLSTMCell"
    spec = {"input_shape": image, "output_channels": dice.between(1, 3),
            "kernel_shape": [dice.between(1, 4) for _ in range(rank)],
            **dice.some(**BIAS, use_bias=[False])}
    if dice.maybe():
        kind = f"Conv{rank}DLSTMCell"
    else:
        spec["conv_ndims"] = rank
    lengths = sizes.lengths() if dice.maybe(0.7) else None
    return {"cell": {"type": kind, **spec}, "input": "image", "image": image,
            "sequence_length": lengths}


def windows(dice, sizes):
    """(options, number of windows) of a cell over parts of its input."""
    feature, skip, count = (dice.between(1, 4) for _ in range(3))
    sizes["I"] = feature + skip * (count - 1)
    sizes["T"] = min(sizes["T"], 6)
    return {"num_units": dice.between(1, 6), "feature_size": feature,
            "frequency_skip": skip,
            **dice.some(**PEEP, **CLIP, **BIAS)}, count


def time_freq(dice, sizes):
    spec, count = windows(dice, sizes)
    return {"cell": {"type": "TimeFreqLSTMCell", "blocks": count, **spec}}


def grid(dice, sizes):
    spec, count = windows(dice, sizes)
    spec.update(dice.some(share_time_frequency_weights=[True],
                          couple_input_forget_gates=[True]))
    kind = dice.pick(["GridLSTMCell", "BidirectionalGridLSTMCell"])
    if kind != "GridLSTMCell":
        spec.update(dice.some(backward_slice_offset=[1, 2]))
    elif dice.maybe(0.3):
        spec["state_is_tuple"] = False
    spec["num_frequency_blocks"] = [count]
    feature, skip = spec["feature_size"], spec["frequency_skip"]
    if dice.maybe(0.3):
        # Two parts of the input: its beginning, and all of it.
        first = dice.between(1, count)
        spec.update(num_frequency_blocks=[first, count],
                    start_freqindex_list=[0, 0],
                    end_freqindex_list=[feature + skip * (first - 1),
                                        sizes["I"]])
    return {"cell": {"type": kind, **spec}}


def wrapper(dice, sizes):
    kind = dice.pick(["AttentionCellWrapper", "HighwayWrapper",
                      "InputProjectionWrapper", "OutputProjectionWrapper",
                      "EmbeddingWrapper"])
    units, more = sizes["H"], {}
    if kind == "AttentionCellWrapper":
        spec = {"attn_length": dice.between(1, 4), **dice.some(
            attn_size=[1, 3, units], attn_vec_size=[1, 2, 5],
            input_size=[1, 3, 6])}
        inner, _ = one_cell(dice, spec.get("input_size", sizes["I"]), units)
        more = F32
    elif kind == "HighwayWrapper":
        inner = {"type": dice.pick(["GRUCell", "LSTMCell", "BasicRNNCell"]),
                 "num_units": sizes["I"]}
        spec = dice.some(couple_carry_transform_gates=[False],
                         carry_bias_init=[-1.0, 2.0])
        more = F32
    elif kind == "InputProjectionWrapper":
        size = dice.between(1, 6)
        inner, _ = one_cell(dice, size, units)
        spec = {"num_proj": size, **dice.some(**ACTS)}
    elif kind == "OutputProjectionWrapper":
        inner, _ = one_cell(dice, sizes["I"], units)
        spec = {"output_size": dice.between(1, 6), **dice.some(**ACTS)}
    else:
        classes, size = dice.between(2, 9), dice.between(1, 5)
        inner, _ = one_cell(dice, size, units)
        spec = {"embedding_classes": classes, "embedding_size": size}
        more = {"input": "ids", "classes": classes}
    return {"driver": "dynamic_rnn", "contrib": True,
            "cell": {"type": kind, "cell": inner, **spec}, **more,
            **sizes.options(dynamic=True)}


def fused(dice, sizes):
    options = sizes.options()
    options["time_major"] = True
    if "sequence_length" in options:
        options["sequence_length"] = sizes.lengths()
    return {"driver": dice.pick(["fused_block_lstm",
                                 "fused_block_lstm_reversed"]),
            "contrib": True, **F32, **options,
            "cell": {"num_units": sizes["H"],
                     **dice.some(**CLIP, **BIAS, use_peephole=[True])}}
