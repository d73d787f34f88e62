"""The set `surface`: every driver, wrapper and cell once or twice."""

from . import contrib
from .fixtures import CELLS as PLAIN_CELLS

SIZES = {"B": 3, "T": 5, "I": 4, "H": 5}
P = 3
LENGTHS = [3, 0, 5]


def units(spec, n=SIZES["H"]):
    return {**spec, "num_units": n}


RNN, GRU, LSTM = (units({"type": t}) for t in
                  ("BasicRNNCell", "GRUCell", "LSTMCell"))
PEEP_PROJ = units(PLAIN_CELLS["lstm_peep_clip_proj"])
MIXED = {"type": "MultiRNNCell", "cells": [LSTM, {**GRU, "num_units": 4}, RNN]}


def dropout(cell, **options):
    return {"type": "DropoutWrapper", "cell": cell, "seed": 11,
            "input_keep_prob": 0.75, "state_keep_prob": 0.625,
            "output_keep_prob": 0.875, **options}


def variational(cell, **options):
    return dropout(cell, variational_recurrent=True, input_size=SIZES["I"],
                   **options)


def wrapper(kind, cell, **options):
    return {"type": kind, "cell": cell, **options}


LEN, INIT, TM = ({"sequence_length": LENGTHS}, {"initial_state": True},
                 {"time_major": True})
SQUARE = {"I": SIZES["H"]}
STATIC = {"driver": "static_rnn"}

# name -> (cell, options); the driver is dynamic_rnn where no other is named.
ONE_CELL = {
    "static_full/lstm": (LSTM, {**STATIC, **TM}),
    "static_full/gru": (GRU, {**STATIC, **TM}),
    "static_all_zero_lengths/gru": (
        GRU, {**STATIC, **INIT, "sequence_length": [0, 0, 0]}),
    "static_len_above_T/lstm": (
        LSTM, {**STATIC, **INIT, "sequence_length": [9, 2, 6]}),
    "multi_mixed/dynamic": (MIXED, {**LEN, **INIT}),
    "multi_mixed/static": (MIXED, {**STATIC, **LEN, **INIT}),
    "multi_mixed/zero_state_tm": (MIXED, TM),
    "multi_nested/dynamic": (
        {"type": "MultiRNNCell", "cells": [
            {"type": "MultiRNNCell", "cells": [GRU, PEEP_PROJ]}, RNN]},
        {**LEN, **INIT}),
    "multi_concat_state/dynamic": (
        {"type": "MultiRNNCell", "state_is_tuple": False, "cells": [
            {**GRU, "num_units": 4}, RNN,
            units(PLAIN_CELLS["lstm_full_concat"])]}, {**LEN, **INIT}),
    "multi_same_object/dynamic": (
        {"type": "MultiRNNCell", "cells": [RNN], "same_object": 3},
        {**LEN, **SQUARE}),
    "dropout_static/lstm": (dropout(LSTM), {**STATIC, **INIT}),
    "dropout_static/inside_multi": (
        {"type": "MultiRNNCell", "cells": [
            wrapper("DropoutWrapper", RNN, input_keep_prob=0.5, seed=3),
            wrapper("DropoutWrapper", GRU, output_keep_prob=0.5, seed=4)]},
        {**STATIC, **INIT}),
    "dropout_static/multi_c_only": (
        dropout(MIXED, dropout_state_filter_visitor="c_only"),
        {**STATIC, **INIT}),
    "dropout_variational/lstm": (variational(LSTM), {**LEN, **INIT}),
    "dropout_variational/filter_all_static": (
        variational(PEEP_PROJ, dropout_state_filter_visitor="all"),
        {**STATIC, **INIT, "sequence_length": [1, 5, 0]}),
    "dropout_variational/filter_skip_second": (
        variational(MIXED, dropout_state_filter_visitor="skip_second"), LEN),
    "wrapper/device_gru": (
        wrapper("DeviceWrapper", GRU, device="/cpu:0"), {**LEN, **INIT}),
    "wrapper/residual_fn_lstm": (
        wrapper("ResidualWrapper", LSTM, residual_fn="mul_add"),
        {**LEN, **INIT, **SQUARE}),
    "wrapper/residual_stack": (
        {"type": "MultiRNNCell", "cells": [
            wrapper("ResidualWrapper", GRU), wrapper("ResidualWrapper", LSTM)]},
        {**LEN, **INIT, **SQUARE}),
    "wrapper/nested_structures": (
        {"type": "ToyNested", "n": 5, "j": 2, "k": 3},
        {**LEN, **INIT, "input": "nested", "j": 2, "k": 3}),
}

ONE_CELL.update({
    f"static_len_init/{name}": (units(spec), {**STATIC, **LEN, **INIT})
    for name, spec in PLAIN_CELLS.items() if "reset_after" not in spec
})
# Not among those that kernels are made for.
ONE_CELL.update({
    f"dynamic_activation/{kind}_{activation}": (
        units({"type": kind, "activation": activation}),
        {**LEN, **INIT, "weight_scale": 0.3})
    for kind, activation in (
        ("BasicRNNCell", "selu"), ("BasicLSTMCell", "softplus"),
        ("GRUCell", "elu"), ("GRUCell", "exponential"),
        ("LSTMCell", "hard_sigmoid"))
})

# name -> (forward cells, backward cells, driver, options): lists for stacks.
TWO_CELLS = {
    "bidir_len_init/peep_proj_multi": (
        PEEP_PROJ, MIXED, "bidirectional_dynamic_rnn", {**LEN, **INIT}),
    "bidir_len_tm/lstm_gru": (
        LSTM, GRU, "bidirectional_dynamic_rnn", {**LEN, **TM}),
    "bidir_full/lstm": (LSTM, LSTM, "bidirectional_dynamic_rnn", {}),
    "static_bidir_len/lstm": (
        LSTM, LSTM, "static_bidirectional_rnn", {**LEN, **INIT}),
    "static_bidir_full/lstm_gru": (
        LSTM, GRU, "static_bidirectional_rnn", {}),
    "stack_bidir_len/gru": (
        [GRU, LSTM], [LSTM, GRU], "stack_bidirectional_dynamic_rnn", LEN),
}

# name -> (loop_fn, cell, options).
LOOPS = {
    "raw_dynamic_equiv/lstm": ("dynamic_equiv", LSTM, LEN),
    "raw_feedback/gru": (
        "feedback", GRU,
        {**INIT, **SQUARE, "sequence_length": [3, 0, 4]}),
    "raw_feedback/multi": (
        "feedback", {"type": "MultiRNNCell", "cells": [LSTM, RNN]},
        {**INIT, **SQUARE, "T": 6, "sequence_length": [1, 6, 2]}),
    "raw_data_stop/gru": (
        "data_stop", GRU, {**INIT, **SQUARE, "T": 7, "threshold": 0.15}),
    "raw_greedy_decoder/lstm": (
        "greedy_decoder", LSTM, {**LEN, **INIT, "V": 6}),
    "raw_scale_state/lstm": (
        "scale_state", LSTM, {**INIT, "sequence_length": [2, 4, 1]}),
}

EMBEDDING = {
    "adam": ("AdamOptimizer", {"learning_rate": 0.01}),
    "momentum": ("MomentumOptimizer",
                 {"learning_rate": 0.1, "momentum": 0.9}),
    "rmsprop": ("RMSPropOptimizer", {"learning_rate": 0.01}),
}


def cases():
    """Yield the headers of the set, without the dtype."""
    for name, (cell, options) in ONE_CELL.items():
        yield {**SIZES, "driver": "dynamic_rnn", **options, "name": name,
               "cell": cell}
    for name, (fw, bw, driver, options) in TWO_CELLS.items():
        kind = "cells" if isinstance(fw, list) else "cell"
        yield {**SIZES, **options, "driver": driver, "name": name,
               f"{kind}_fw": fw, f"{kind}_bw": bw}
    for name, (loop_fn, cell, options) in LOOPS.items():
        yield {**SIZES, **options, "driver": "raw_rnn", "name": name,
               "loop_fn": loop_fn, "cell": cell, "input": None}
    for name, cell in (("lstm", LSTM), ("gru", GRU)):
        yield state_saving(f"state_saving/{name}", cell, SIZES, 3, 3,
                           [9, 4, 6])
    for name, (optimizer, options) in EMBEDDING.items():
        yield {
            "name": f"train_embedding/{name}", "driver": "train",
            "B": 4, "T": 5, "I": 3, "H": 4, "classes": 3, "steps": 5,
            "cell": {"type": "BasicLSTMCell", "num_units": 4},
            "model": "logits = final h . softmax/kernel + softmax/bias; "
                     "loss = mean cross-entropy",
            "optimizer": optimizer, "options": options, "clip_norm": 0.7,
            "embedding": True,
        }
    yield from contrib.cases()


def state_saving(name, cell, sizes, chunks, num_unroll, lengths):
    return {**sizes, "T": chunks * num_unroll, "name": name, "cell": cell,
            "driver": "static_state_saving_rnn", "chunks": chunks,
            "num_unroll": num_unroll, "sequence_length": lengths,
            "loss": "per chunk: sum(outputs * R); no gradient crosses a "
                    "chunk edge"}
