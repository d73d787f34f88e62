"""The set `records`: TFRecord files of SequenceExamples, and what TensorFlow reads from them:
parsed, batched, queued, bucketed and cut into segments."""

import json

import numpy as np

from common import Draw, save
from .graph import new_session, tensorflow, tf
from .records_errors import calls

# What `--size NAME=VALUE` sets; those that are lists take a comma between.
SIZES = {
    "examples": 11,
    "max_length": 8,  # the lengths are 1 to this, in a random order
    "feats": 3,  # values a step
    "batch_size": 4,
    "dequeue_many": 3,
    "num_unroll": 3,
    "bucket_boundaries": [3, 5],
    "bucket_batch_sizes": [3, 2, 3],  # one more than boundaries
}

# First tokens: where a varint gets longer, and both ends.
TOKENS = [-1, 0, 1, 127, 128, 300, -2 ** 63, 2 ** 63 - 1]
CLASSES, TAGS, MOST_TAGS = 5, 9, 3
COMPRESSIONS = {"plain": "", "gzip": "GZIP", "zlib": "ZLIB"}
PLAIN = "records.plain.tfrecord"

CONTEXT = {
    "length": tf.io.FixedLenFeature([], tf.int64),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "weight": tf.io.FixedLenFeature([], tf.float32),
    "id": tf.io.FixedLenFeature([], tf.string),
    "absent": tf.io.FixedLenFeature([], tf.float32, default_value=2.5),
}


def lists(sizes):
    return {
        "tokens": tf.io.FixedLenSequenceFeature([], tf.int64),
        "feats": tf.io.FixedLenSequenceFeature([sizes["feats"]], tf.float32),
        "names": tf.io.FixedLenSequenceFeature([], tf.string),
        "tags": tf.io.VarLenFeature(tf.int64),
        "absent_list": tf.io.FixedLenSequenceFeature(
            [2], tf.float32, allow_missing=True),
    }


# ---- The files.

def int64s(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def strings(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(index, length, rng, sizes):
    tokens = rng.integers(0, 2 ** 40, length)
    tokens[0] = TOKENS[index % len(TOKENS)]
    names = [f"w{step}_{'x' * rng.integers(0, 5)}" for step in range(length)]
    tags = [rng.integers(0, TAGS, rng.integers(0, MOST_TAGS + 1))
            for _ in range(length)]
    feats = rng.standard_normal([length, sizes["feats"]]).astype(np.float32)
    steps = {
        "tokens": [int64s([token]) for token in tokens],
        "feats": [floats(row) for row in feats],
        "names": [strings([name.encode()]) for name in names],
        "tags": [int64s(values) for values in tags],
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={
            "length": int64s([length]),
            "label": int64s([rng.integers(0, CLASSES)]),
            "weight": floats([rng.random()]),
            "id": strings([f"ex-{index} \u00e9".encode()]),
        }),
        feature_lists=tf.train.FeatureLists(feature_list={
            key: tf.train.FeatureList(feature=features)
            for key, features in steps.items()}))


def serialized(seed, sizes):
    rng = Draw(seed, "records", np.float32).rng
    lengths = rng.permutation(
        np.arange(sizes["examples"]) % sizes["max_length"] + 1)
    # deterministic: the entries of a map are sorted.
    return [example(index, int(length), rng, sizes).SerializeToString(
        deterministic=True) for index, length in enumerate(lengths)]


def write_records(path, records, compression=""):
    with tf.io.TFRecordWriter(
            str(path), tf.io.TFRecordOptions(compression)) as writer:
        for record in records:
            writer.write(record)
    print(path.name, flush=True)


# ---- Reading them. Each function returns the header and the tensors.

def text(value):
    """The JSON of a tensor of strings: latin-1 of the bytes."""
    if isinstance(value, (np.ndarray, list)):
        return [text(item) for item in value]
    return value.decode("latin-1")


def split(values):
    """The header of `values` with the strings, and the tensors."""
    found = {key: text(value) for key, value in values.items()
             if np.asarray(value).dtype.kind in "OS"}
    tensors = {key: value for key, value in values.items()
               if key not in found}
    header = {"strings": found, "strings_encoding": "latin-1 of the raw bytes"}
    return (header if found else {}), tensors


def until_the_end(session, fetches):
    """The values of `fetches`, run until TensorFlow is out of range."""
    try:
        while True:
            yield session.run(fetches)
    except tf.errors.OutOfRangeError:
        pass


def dataset(folder, sizes):
    """A dataset of the parsed examples, context and lists in one."""
    def parse(record):
        context, steps = tf.io.parse_single_sequence_example(
            record, CONTEXT, lists(sizes))
        return {**context, **steps}
    return tf.data.TFRecordDataset(str(folder / PLAIN)).map(parse)


def element(folder, sizes):
    return tf.data.make_one_shot_iterator(dataset(folder, sizes)).get_next()


def examples(folder, sizes):
    values = {}
    with new_session() as session:
        parsed = list(until_the_end(session, element(folder, sizes)))
    for index, one in enumerate(parsed):
        for key, value in one.items():
            name = f"example/{index:02}/" + (
                f"context/{key}" if key in CONTEXT else key)
            if key == "tags":
                values.update((f"{name}/{part}", part_value) for
                              part, part_value in value._asdict().items())
            else:
                values[name] = value
    header, tensors = split(values)
    return {"driver": "parse_single_sequence_example", "file": PLAIN,
            "count": len(parsed), **header}, tensors


def batch_dynamic_pad(folder, sizes):
    keys = ["length", "label", "weight", "id", "tokens", "feats", "names"]
    options = {"batch_size": sizes["batch_size"], "dynamic_pad": True,
               "allow_smaller_final_batch": True}
    reader = tf.TFRecordReader()
    _, record = reader.read(tf.train.string_input_producer(
        [str(folder / PLAIN)], num_epochs=1, shuffle=False))
    context, steps = tf.io.parse_single_sequence_example(
        record, CONTEXT, lists(sizes))
    parsed = {**context, **steps}
    batch = tf.train.batch({key: parsed[key] for key in keys}, **options)
    with new_session() as session:
        session.run(tf.local_variables_initializer())
        threads = tf.train.Coordinator()
        tf.train.start_queue_runners(session, threads)
        batches = list(until_the_end(session, batch))
        threads.request_stop()
        threads.join()
    header, tensors = split({
        f"batch/{index}/{key}": value
        for index, values in enumerate(batches)
        for key, value in values.items()})
    return {"driver": "train.batch", "file": PLAIN, "batches": len(batches),
            **options, **header}, tensors


def padding_fifo_queue(folder, sizes):
    many = sizes["dequeue_many"]
    queue = tf.queue.PaddingFIFOQueue(
        sizes["examples"], [tf.int64, tf.float32],
        [[None], [None, sizes["feats"]]], names=["tokens", "feats"])
    parsed = element(folder, sizes)
    enqueue = queue.enqueue({key: parsed[key] for key in queue.names})
    close, dequeue = queue.close(), queue.dequeue_many(many)
    with new_session() as session:
        count = len(list(until_the_end(session, enqueue)))
        session.run(close)
        dequeued = list(until_the_end(session, dequeue))
    left = count - many * len(dequeued)
    return {"driver": "PaddingFIFOQueue", "dequeue_many": many,
            "dequeues": len(dequeued),
            "note": "elements enqueued in file order, queue closed, "
                    f"remainder of {left} not delivered",
            }, {f"dequeue/{index}/{key}": value
                for index, values in enumerate(dequeued)
                for key, value in values.items()}


def bucket_by_sequence_length(folder, sizes):
    options = {key: sizes[key]
               for key in ("bucket_boundaries", "bucket_batch_sizes")}

    def row(index, parsed):
        return {"index": tf.cast(index, tf.int32),
                "length": tf.size(parsed["tokens"]),
                "tokens": parsed["tokens"]}

    rows = dataset(folder, sizes).enumerate().map(row)
    buckets = rows.apply(tf.data.experimental.bucket_by_sequence_length(
        lambda values: values["length"], **options))
    with new_session() as session:
        lengths = [int(values["length"]) for values in until_the_end(
            session, tf.data.make_one_shot_iterator(rows).get_next())]
        batches = list(until_the_end(
            session, tf.data.make_one_shot_iterator(buckets).get_next()))
    return {"driver": "bucket_by_sequence_length", "batches": len(batches),
            "lengths": lengths, **options,
            "note": "tf.data variant: full batches in arrival order, then "
                    "the remainders by bucket id; bucket k holds "
                    "boundary[k-1] <= length < boundary[k]",
            }, {f"batch/{index}/{key}": value
                for index, values in enumerate(batches)
                for key, value in values.items()}


def state_segments(folder, sizes):
    """The rule of tf.contrib.training.batch_sequences_with_states, which
    TensorFlow 2 does not have."""
    unroll, keys, tensors = sizes["num_unroll"], [], {}
    with new_session() as session:
        parsed = list(until_the_end(session, element(folder, sizes)))
    for one in parsed:
        tokens, name = one["tokens"], text(one["id"])
        count = -(-len(tokens) // unroll)
        padded = np.pad(tokens, (0, count * unroll - len(tokens)))
        names = [f"{index:05}_of_{count:05}:{name}" for index in range(count)]
        for index in range(count):
            segment = {
                "tokens": padded[index * unroll:(index + 1) * unroll],
                "length": np.clip(len(tokens) - index * unroll, 0, unroll),
                "sequence": index, "sequence_count": count,
                "total_length": len(tokens)}
            tensors.update(
                (f"segment/{len(keys):02}/{key}", value if key == "tokens"
                 else np.int32(value)) for key, value in segment.items())
            keys.append((names + [f"STOP:{name}"])[index:index + 2])
    return {"driver": "batch_sequences_with_states", "num_unroll": unroll,
            "keys": keys,
            "note": "the segments and keys each example yields; batch "
                    "composition is a queue matter; computed in NumPy by the "
                    "rule of tf.contrib, which TensorFlow 2 does not have",
            }, tensors


READ = [examples, batch_dynamic_pad, padding_fifo_queue,
        bucket_by_sequence_length, state_segments]


def write_set(options):
    """Writes the files of the set; `options` are those of the command line."""
    folder, sizes = options.out_dir, dict(SIZES)
    for name, value in dict(options.size).items():
        whole = isinstance(SIZES[name], int)
        sizes[name] = value if whole or isinstance(value, list) else [value]
    folder.mkdir(parents=True, exist_ok=True)
    records = serialized(options.seed, sizes)
    for name, compression in COMPRESSIONS.items():
        write_records(folder / f"records.{name}.tfrecord", records,
                      compression)
    write_records(folder / "records.shard2.tfrecord", [b"", records[0]])
    for read in READ:
        name = f"records.{read.__name__}.mixed"
        if not name.startswith(options.only):
            continue
        with tf.Graph().as_default():
            header, tensors = read(folder, sizes)
        header.update(generator_seed=options.seed,
                      tf_version=tensorflow.__version__)
        save(folder / f"{name}.safetensors", header, tensors)
    if "records.errors".startswith(options.only):
        path = folder / "records.errors.json"
        # One call a line.
        path.write_text("[\n" + ",\n".join(
            json.dumps(call, separators=(",", ":"))
            for call in calls()) + "\n]\n")
        print(path.name, flush=True)
