#!/usr/bin/env python3
"""TFRecord files from and to TensorFlow, with every kind of feature.

    python records_interop.py write DIR
    python records_interop.py check DIR

`write` makes tensorflow.{plain,gzip,zlib,example}.tfrecord, and tensorflow.json
with what they hold. `check` reads rust.*.tfrecord and compares every value with
rust.json, which has the same form. It ends with 1 where one differs.

Needs TensorFlow 2 and NumPy. README.md describes the JSON.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

COMPRESSIONS = {"plain": "", "gzip": "GZIP", "zlib": "ZLIB"}
DTYPES = {"int64": tf.int64, "float": tf.float32, "bytes": tf.string}

# ---- What `write` puts into the files.

INT64S = [0, 1, -1, 127, 128, -128, 300, 2 ** 31, -2 ** 31, 2 ** 32,
          2 ** 63 - 1, -2 ** 63]
# As bits: zeros, ones, largest, smallest normal and subnormal, infinities, NaNs.
FLOATS = [0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f7fffff,
          0x00800000, 0x00000001, 0x807fffff, 0x7f800000, 0xff800000,
          0x7fc00000, 0xffc00001]
BYTES = [b"", b"a", b"\0", b"\xff\xfe\x80", "\u00e9\u4e2d".encode(),
         bytes(range(256))]


def feature(kind, values=()):
    """A feature as it stands in the JSON."""
    written = {"int64": str, "float": int,
               "bytes": lambda value: value.decode("latin-1")}.get(kind)
    return {"kind": kind, "values": [written(value) for value in values]}


def unset():
    return feature(None)


def record(context, lists=()):
    return {"context": context, "feature_lists": dict(lists)}


def contexts():
    return [
        {"int64": feature("int64", INT64S), "float": feature("float", FLOATS),
         "bytes": feature("bytes", BYTES)},
        {"int64": feature("int64", [-5]), "float": feature("float", [1]),
         "bytes": feature("bytes", [b""])},
        {"int64": feature("int64"), "float": feature("float"),
         "bytes": feature("bytes")},
        {"int64": unset(), "float": feature("float", FLOATS[-2:])},
        {"": feature("int64", [7]), "\u00e9 \u4e2d": feature("bytes", [b"key"])},
    ]


def sequence_examples():
    first, one, empty, some, odd = contexts()
    return [
        record(first, {
            "int64": [feature("int64", [value]) for value in INT64S],
            "float": [feature("float", [bits]) for bits in FLOATS],
            "bytes": [feature("bytes", [value]) for value in BYTES]}),
        record(one, {
            "int64": [feature("int64", INT64S[:n]) for n in (2, 0, 3, 1)],
            "float": [feature("float", FLOATS[n:]) for n in (11, 12, 8)],
            "bytes": [feature("bytes", BYTES[n:5]) for n in (5, 1, 4)]}),
        record(empty, {
            "int64": [], "float": [feature("float")],
            "bytes": [feature("bytes"), feature("bytes")]}),
        record(some, {
            "int64": [unset(), feature("int64", [9]), unset()],
            "bytes": [unset()]}),
        record(odd, {"": [feature("float", [0x3f000000])]}),
        record({}),
        record({}, {"int64": [
            feature("int64", [n % 3 - 1]) for n in range(130)]}),
        record(one),
    ]


# ---- JSON to messages and back.

def floats_of(bits):
    return np.array(bits, np.uint32).view(np.float32)


def to_message(given):
    values = given["values"]
    return {
        "int64": lambda: tf.train.Feature(int64_list=tf.train.Int64List(
            value=map(int, values))),
        "float": lambda: tf.train.Feature(float_list=tf.train.FloatList(
            value=floats_of(values))),
        "bytes": lambda: tf.train.Feature(bytes_list=tf.train.BytesList(
            value=[value.encode("latin-1") for value in values])),
        None: tf.train.Feature,
    }[given["kind"]]()


def from_message(message):
    kind = message.WhichOneof("kind")
    if kind is None:
        return unset()
    values = getattr(message, kind).value
    kind = kind[:-len("_list")]
    if kind == "float":
        values = np.array(values, np.float32).view(np.uint32)
    return feature(kind, values)


def features_of(given):
    return tf.train.Features(feature={
        name: to_message(value) for name, value in given.items()})


def sequence_example_of(given):
    return tf.train.SequenceExample(
        context=features_of(given["context"]),
        feature_lists=tf.train.FeatureLists(feature_list={
            name: tf.train.FeatureList(feature=map(to_message, steps))
            for name, steps in given["feature_lists"].items()}))


def record_of(context, lists=None):
    """The JSON of a message's parts."""
    return record(
        {name: from_message(value) for name, value in context.feature.items()},
        {name: [from_message(step) for step in steps.feature]
         for name, steps in (lists.feature_list.items() if lists else ())})


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    held = {"sequence_examples": sequence_examples(),
            "examples": [record(context) for context in contexts()]
            + [record({})]}
    sequences = [sequence_example_of(given)
                 for given in held["sequence_examples"]]
    plain = [tf.train.Example(features=features_of(given["context"]))
             for given in held["examples"]]
    for name, compression, messages in [
            *((name, compression, sequences)
              for name, compression in COMPRESSIONS.items()),
            ("example", "", plain)]:
        path = folder / f"tensorflow.{name}.tfrecord"
        with tf.io.TFRecordWriter(
                str(path), tf.io.TFRecordOptions(compression)) as writer:
            for message in messages:
                writer.write(message.SerializeToString(deterministic=True))
        print(path.name)
    # One record a line.
    text = ",\n".join(
        f'"{key}":[\n' + ",\n".join(
            json.dumps(given, separators=(",", ":")) for given in records)
        + "\n]" for key, records in held.items())
    (folder / "tensorflow.json").write_text("{" + text + "}\n")
    print("tensorflow.json")


# ---- Comparing.

def comparable(given):
    """A feature with its values as NumPy or Python ones, all NaNs the same."""
    values = given["values"]
    if given["kind"] == "float":
        values = ["NaN" if np.isnan(floats_of([bits]))[0] else bits
                  for bits in values]
    return [given["kind"], values]


def same_record(given, found):
    """Whether two records in the form of the JSON are the same."""
    def whole(one):
        return ({name: comparable(value)
                 for name, value in one["context"].items()},
                {name: [comparable(step) for step in steps]
                 for name, steps in one["feature_lists"].items()})
    return whole(given) == whole(found)


def kind_of(features):
    """The kind that parsing takes a feature or the steps of a list for; null
    where none is set."""
    return next((one["kind"] for one in features if one["kind"]), None)


def parsed_same(serialized, given):
    """Whether TensorFlow's parser finds the values of a record."""
    rows = {("context", name): [value]
            for name, value in given["context"].items()}
    rows.update({("lists", name): steps
                 for name, steps in given["feature_lists"].items()})
    specs = {"context": {}, "lists": {}}
    for (part, name), features in rows.items():
        # Nothing but unset features can be parsed as any kind.
        specs[part][name] = tf.io.VarLenFeature(
            DTYPES[kind_of(features) or "int64"])
    if not rows:
        specs["context"]["missing"] = tf.io.VarLenFeature(tf.int64)
    context, lists = tf.io.parse_single_sequence_example(
        serialized, specs["context"], specs["lists"])
    if not rows:
        return context["missing"].shape == [0]
    parsed = {"context": context, "lists": lists}
    return all(same_sparse(parsed[part][name], features, part == "context")
               for (part, name), features in rows.items())


def same_sparse(sparse, features, flat):
    kind = kind_of(features) or "int64"
    values = sparse.values.numpy()
    if kind == "float":
        values = values.view(np.uint32)
    expected = feature(kind)
    expected["values"] = [value for one in features for value in one["values"]]
    counts = [len(one["values"]) for one in features]
    indices = [[step, index] for step, count in enumerate(counts)
               for index in range(count)]
    shape = [len(features), max(counts, default=0)]
    if flat:
        indices, shape = [index[1:] for index in indices], shape[1:]
    return (comparable(feature(kind, values.tolist())) == comparable(expected)
            and sparse.indices.numpy().tolist() == indices
            and sparse.dense_shape.numpy().tolist() == shape)


def check_file(path, compression, records, sequences):
    """What is wrong with a file, or None."""
    try:
        found = [one.numpy() for one in tf.data.TFRecordDataset(
            str(path), compression)]
    except tf.errors.OpError as error:
        return f"{type(error).__name__}: {error.message}"
    if len(found) != len(records):
        return f"{len(found)} records, not {len(records)}"
    for index, (serialized, given) in enumerate(zip(found, records)):
        try:
            if sequences:
                message = tf.train.SequenceExample.FromString(serialized)
                read = record_of(message.context, message.feature_lists)
            else:
                message = tf.train.Example.FromString(serialized)
                read = record_of(message.features)
                given = record(given["context"])
            if not same_record(given, read):
                return f"record {index}: the message has other values"
            if sequences and not parsed_same(serialized, given):
                return f"record {index}: the parser finds other values"
        except Exception as error:  # a decoder's, or the parser's
            return f"record {index}: {type(error).__name__}: {error}"
    return None


def check(folder):
    held = json.loads((folder / "rust.json").read_text())
    failed = False
    for name, compression, key in [
            *((name, compression, "sequence_examples")
              for name, compression in COMPRESSIONS.items()),
            ("example", "", "examples")]:
        path = folder / f"rust.{name}.tfrecord"
        wrong = check_file(path, compression, held[key],
                           key == "sequence_examples")
        print(f"{path.name}: {len(held[key])} records: {wrong or 'ok'}")
        failed |= wrong is not None
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("write", "check"))
    parser.add_argument("folder", type=Path, metavar="DIR")
    given = parser.parse_args()
    sys.exit({"write": write, "check": check}[given.command](given.folder))
