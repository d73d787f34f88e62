#!/usr/bin/env python3
"""Write checkpoints and graphs of TensorFlow 1.15 and what their models compute.

    python tensorflow1.py ../tests/data/tensorflow

README.md describes the files.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tensorflow.python.framework import graph_util  # noqa: E402

tf.logging.set_verbosity(tf.logging.ERROR)

BATCH, TIME, DEPTH, UNITS = 4, 6, 3, 5
LENGTHS = [4, 0, 6, 2]


def session(config=None):
    """A session whose variables are random, biases too."""
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(7)
    for variable in tf.global_variables():
        if not variable.op.name.startswith("types/"):
            value = 0.5 * rng.standard_normal(variable.shape.as_list())
            variable.load(value.astype(variable.dtype.as_numpy_dtype), session)
    return session


def inputs():
    return np.random.RandomState(3).standard_normal(
        [BATCH, TIME, DEPTH]).astype(np.float32)


def cells():
    """Every cell under a scope of its own; the outputs by names."""
    x = tf.placeholder(tf.float32, [BATCH, TIME, DEPTH], "x")
    lengths = tf.constant(LENGTHS)
    rnn = tf.nn.rnn_cell
    one_way = {
        "basic": rnn.BasicRNNCell(UNITS),
        "gru": rnn.GRUCell(UNITS),
        "lstm": rnn.LSTMCell(UNITS, use_peepholes=True, num_proj=2),
        "stack": rnn.MultiRNNCell([rnn.BasicLSTMCell(UNITS),
                                   rnn.BasicLSTMCell(UNITS + 2)]),
    }
    outputs = {}
    for name, cell in one_way.items():
        outputs[name], _ = tf.nn.dynamic_rnn(
            cell, x, lengths, dtype=tf.float32, scope=name)
    both, _ = tf.nn.bidirectional_dynamic_rnn(
        rnn.GRUCell(UNITS), rnn.GRUCell(UNITS), x, lengths, dtype=tf.float32,
        scope="both")
    outputs["both"] = tf.concat(both, 2)
    outputs["dense"] = tf.layers.dense(outputs["gru"], 2, name="dense")
    return x, outputs


def save_cells(folder):
    tf.reset_default_graph()
    tf.set_random_seed(7)
    x, outputs = cells()
    # Types, partitions along either axis and both, and a name with a space.
    parts = tf.fixed_size_partitioner
    tf.get_variable("parts/rows", [7, 3], partitioner=parts(3))
    tf.get_variable("parts/columns", [3, 70], partitioner=parts(4, axis=1))
    tf.get_variable("types/f64", [2, 3], tf.float64)
    tf.get_variable("types/f16", [3], tf.float16)
    tf.Variable(tf.constant([1.5, -2.0], tf.bfloat16), name="types/bf16")
    for name in ["int8", "uint8", "int16", "uint16", "int32", "int64"]:
        tf.Variable(np.array([1, 2, 100], name), name=f"types/{name}")
    tf.Variable([True, False], name="types/bool")
    tf.Variable(3.25, name="types/scalar")
    tf.Variable(np.zeros([0, 4], np.float32), name="types/empty")
    tf.Variable(["some", "text"], name="types/string")
    feed = {x: inputs()}
    with session() as s:
        path = f"{folder}/cells.ckpt"
        tf.train.Saver().save(s, path, write_meta_graph=False,
                              write_state=False)
        computed = s.run(outputs, feed)
        frozen = graph_util.convert_variables_to_constants(
            s, s.graph_def, [v.op.name for v in (outputs["gru"], outputs["dense"])])
        # Variables whose values are one number, or a list.
        stored = {v.op.name: s.run(v) for v in tf.global_variables()
                  if not v.op.name.startswith(("parts/", "types/"))}
        stored["parts/rows"] = s.run(tf.concat(
            [v for v in tf.global_variables() if "parts/rows" in v.name], 0))
        stored["parts/columns"] = s.run(tf.concat(
            [v for v in tf.global_variables() if "parts/columns" in v.name], 1))
    with open(f"{folder}/frozen.pb", "wb") as file:
        file.write(frozen.SerializeToString())
    np.savez(f"{folder}/cells.npz", x=inputs(), lengths=np.array(LENGTHS, "i4"),
             **{f"outputs/{k}": v for k, v in computed.items()},
             **{f"weights/{k}": v for k, v in stored.items()})


def save_sharded(folder):
    tf.reset_default_graph()
    with tf.device("/cpu:0"):
        tf.get_variable("a", [2, 3])
    with tf.device("/cpu:1"):
        tf.get_variable("b", [4])
    with session(tf.ConfigProto(device_count={"CPU": 2})) as s:
        tf.train.Saver(sharded=True).save(
            s, f"{folder}/sharded.ckpt", write_meta_graph=False,
            write_state=False)
        np.savez(f"{folder}/sharded.npz",
                 **{v.op.name: s.run(v) for v in tf.global_variables()})


def save_old(folder):
    tf.reset_default_graph()
    tf.get_variable("a", [2, 3])
    with session() as s:
        tf.train.Saver(write_version=tf.train.SaverDef.V1).save(
            s, f"{folder}/v1.ckpt", write_meta_graph=False, write_state=False)


def save_constants(folder):
    """A graph of constants of every type, and forms of values."""
    tf.reset_default_graph()
    for name in ["float32", "float64", "float16", "bfloat16", "int8", "uint8",
                 "int16", "uint16", "int32", "int64", "bool"]:
        dtype = getattr(tf, name)
        one, zero = (True, False) if name == "bool" else (1, 0)
        tf.constant([[one, zero, one], [one, one, zero]], dtype,
                    name=f"list/{name}")
        tf.constant(one, dtype, [2, 2], name=f"repeated/{name}")
        tf.constant(one, dtype, name=f"scalar/{name}")
    tf.constant(["text"], name="text")
    with open(f"{folder}/constants.pb", "wb") as file:
        file.write(tf.get_default_graph().as_graph_def().SerializeToString())


def save_model(folder):
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None, TIME, DEPTH], "x")
    y, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(UNITS), x, dtype=tf.float32)
    with session() as s:
        tf.saved_model.simple_save(s, f"{folder}/saved_model", {"x": x}, {"y": y})


def check(path, expected):
    """Compare a checkpoint with arrays: for files written by others."""
    reader = tf.train.load_checkpoint(path)
    arrays = np.load(expected)
    assert set(reader.get_variable_to_shape_map()) == set(arrays.files)
    for name in arrays.files:
        found = reader.get_tensor(name)
        assert found.shape == arrays[name].shape, name
        np.testing.assert_array_equal(found.astype(arrays[name].dtype),
                                      arrays[name])
    print("equal", len(arrays.files))


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(*sys.argv[2:])
    else:
        os.makedirs(sys.argv[1], exist_ok=True)
        for save in [save_cells, save_sharded, save_old, save_constants,
                     save_model]:
            save(sys.argv[1])
