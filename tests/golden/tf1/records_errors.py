"""records.errors.json: what TensorFlow makes of calls that are wrong, or look so.

Every call is made. Its message or file stands beside the outcome, in hex.
TensorFlow 2 parses with other code than TensorFlow 1, which goes through the
message classes. The op of TensorFlow 1 is still there: where it comes to
something else, that stands beside the outcome as well, as `tf1`.
"""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .graph import HAS_CONTRIB, new_session, tensorflow, tf

# ---- Protocol buffers by hand, for what the message classes do not write.

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value):
    value &= (1 << 64) - 1
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes(octets + bytearray([value]))


def tag(number, wire):
    return varint(number << 3 | wire)


def part(number, *contents):
    """A field that has a length: bytes, a message, packed numbers."""
    contents = b"".join(contents)
    return tag(number, BYTES) + varint(len(contents)) + contents


def f32(*values):
    return np.array(values, "<f4").tobytes()


def packed(*values):
    return part(1, *map(varint, values))


def bytes_list(*values):
    return part(1, *(part(1, value) for value in values))


def float_list(*values):
    return part(2, part(1, f32(*values)))


def int64_list(*values):
    return part(3, packed(*values))


UNSET = b""
NO_VALUES = part(3)


def entry(key, value):
    """The entry of a map whose value is a message."""
    return part(1, part(1, key), part(2, value))


def context(*entries):
    return part(1, *entries)


def lists(*entries):
    return part(2, *entries)


def steps(*features):
    return b"".join(part(1, feature) for feature in features)


# ---- Specifications, as they stand in the file.

def fixed(dtype, *shape, **options):
    return {"type": "FixedLenFeature", "dtype": dtype, "shape": list(shape),
            **options}


def sequence(dtype, *shape, **options):
    return {"type": "FixedLenSequenceFeature", "dtype": dtype,
            "shape": list(shape), **options}


def varlen(dtype):
    return {"type": "VarLenFeature", "dtype": dtype}


def features(specs):
    """The specifications as TensorFlow takes them."""
    def feature(spec):
        options = {key: value for key, value in spec.items() if key != "type"}
        if "default" in options:
            options["default_value"] = options.pop("default")
        return getattr(tf.io, spec["type"])(**{
            **options, "dtype": getattr(tf, spec["dtype"])})
    return {key: feature(spec) for key, spec in specs.items()}


# ---- Calls of parse_single_sequence_example.

A, B = b"a", b"b"
INT, FLOAT, STRING = "int64", "float32", "string"

# feats has two values a step.
MESSAGE = context(entry(b"label", int64_list(3))) + lists(
    entry(b"feats", steps(float_list(1, -2))),
    entry(b"tokens", steps(int64_list(1), int64_list(300))))


def one(feature):
    """A message whose context has this feature as `a`."""
    return context(entry(A, feature))


def listed(*features):
    """A message that has a list `a` of these steps."""
    return lists(entry(A, steps(*features)))


# (call, message, context features, feature lists). Not here: a feature list of
# steps of shape [0], for TensorFlow 2.15 divides by zero and the process ends.
PARSE = [
    ("missing required context feature", MESSAGE,
     {"nope": fixed(INT)}, {}),
    ("missing required feature list", MESSAGE, {}, {"nope": sequence(INT)}),
    ("wrong dtype of a context feature", MESSAGE, {"label": fixed(FLOAT)}, {}),
    ("wrong dtype of a feature list", MESSAGE, {}, {"tokens": sequence(FLOAT)}),
    ("wrong number of values per step", MESSAGE,
     {}, {"feats": sequence(FLOAT, 3)}),
    ("wrong number of values in context", MESSAGE,
     {"label": fixed(INT, 2)}, {}),
    ("not a SequenceExample", b"not a message", {"label": fixed(INT)}, {}),
    ("empty message, all optional", b"",
     {"label": fixed(INT, default=7), "ids": varlen(INT)},
     {"tokens": sequence(INT, allow_missing=True), "tags": varlen(INT)}),

    # Context.
    ("context feature of several values into a scalar shape",
     one(int64_list(1, 2)), {"a": fixed(INT)}, {}),
    ("context feature of four values into shape [2, 2]",
     one(int64_list(1, 2, 3, 4)), {"a": fixed(INT, 2, 2)}, {}),
    ("context feature of no values into shape [0]",
     one(NO_VALUES), {"a": fixed(INT, 0)}, {}),
    ("context feature of no values into a scalar shape",
     one(NO_VALUES), {"a": fixed(INT)}, {}),
    ("context feature of no values, with a default",
     one(NO_VALUES), {"a": fixed(INT, default=7)}, {}),
    ("context feature of no values of the wrong kind",
     one(part(2)), {"a": fixed(INT, 0)}, {}),
    ("context feature of kind unset", one(UNSET), {"a": fixed(INT)}, {}),
    ("context feature of kind unset, with a default",
     one(UNSET), {"a": fixed(INT, default=7)}, {}),
    ("context feature of the wrong kind, with a default",
     one(float_list(1)), {"a": fixed(INT, default=7)}, {}),
    ("wrong number of values in context, with a default",
     one(int64_list(1, 2)), {"a": fixed(INT, default=7)}, {}),
    ("default of shape [2] from one value",
     b"", {"a": fixed(INT, 2, default=7)}, {}),
    ("default of the wrong number of values",
     b"", {"a": fixed(INT, 2, default=[7, 8, 9])}, {}),
    ("default of the wrong kind",
     b"", {"a": fixed(INT, default=[1.5])}, {}),
    ("context feature with a dimension that is not known",
     one(int64_list(1)), {"a": fixed(INT, None)}, {}),
    ("context feature of dtype int32",
     one(int64_list(1)), {"a": fixed("int32")}, {}),
    ("context feature of dtype float64",
     one(float_list(1)), {"a": fixed("float64")}, {}),
    ("varlen context feature", one(int64_list(4, -5)), {"a": varlen(INT)}, {}),
    ("varlen context feature that is missing", b"", {"a": varlen(INT)}, {}),
    ("varlen context feature of kind unset",
     one(UNSET), {"a": varlen(INT)}, {}),
    ("varlen context feature of no values",
     one(NO_VALUES), {"a": varlen(INT)}, {}),
    ("varlen context feature of the wrong kind",
     one(float_list(1)), {"a": varlen(INT)}, {}),
    ("varlen context feature of no values of the wrong kind",
     one(part(2)), {"a": varlen(INT)}, {}),
    ("varlen context feature of dtype int32",
     one(int64_list(1)), {"a": varlen("int32")}, {}),
    ("FixedLenSequenceFeature in the context",
     one(int64_list(1)), {"a": sequence(INT)}, {}),
    ("one name for a context feature and a feature list",
     one(int64_list(1)) + listed(int64_list(2)),
     {"a": fixed(INT)}, {"a": sequence(INT)}),
    ("no features asked for", b"", {}, {}),

    # Feature lists.
    ("feature list of no steps", listed(), {}, {"a": sequence(INT)}),
    ("feature list of no steps, steps of shape [2]",
     listed(), {}, {"a": sequence(INT, 2)}),
    ("missing feature list, allow_missing, steps of shape [2, 3]",
     b"", {}, {"a": sequence(INT, 2, 3, allow_missing=True)}),
    ("feature list entry without a value",
     lists(part(1, part(1, A))), {}, {"a": sequence(INT)}),
    ("feature list step of kind unset",
     listed(int64_list(1), UNSET), {}, {"a": sequence(INT)}),
    ("feature list step of kind unset, allow_missing",
     listed(int64_list(1), UNSET), {},
     {"a": sequence(INT, allow_missing=True)}),
    ("feature list step of no values",
     listed(int64_list(1), NO_VALUES), {}, {"a": sequence(INT)}),
    ("feature list step of no values of the wrong kind, steps of shape [0]",
     listed(part(2)), {}, {"a": sequence(INT, 0)}),
    ("feature list steps of two kinds",
     listed(int64_list(1), float_list(2)), {}, {"a": sequence(INT)}),
    ("feature list step of too many values",
     listed(int64_list(1), int64_list(2, 3)), {}, {"a": sequence(INT)}),
    ("feature list steps that make up for each other",
     listed(int64_list(1), int64_list(2, 3, 4)), {}, {"a": sequence(INT, 2)}),
    ("feature list of steps of shape [2, 2]",
     listed(int64_list(1, 2, 3, 4), int64_list(5, 6, 7, 8)), {},
     {"a": sequence(INT, 2, 2)}),
    ("feature list of dtype int32",
     listed(int64_list(1)), {}, {"a": sequence("int32")}),
    ("FixedLenFeature of a feature list",
     listed(int64_list(1)), {}, {"a": fixed(INT)}),
    ("varlen feature list of ragged steps",
     listed(int64_list(1), NO_VALUES, int64_list(2, 3)), {},
     {"a": varlen(INT)}),
    ("varlen feature list of empty steps",
     listed(NO_VALUES, NO_VALUES), {}, {"a": varlen(INT)}),
    ("varlen feature list that is missing", b"", {}, {"a": varlen(INT)}),
    ("varlen feature list of no steps", listed(), {}, {"a": varlen(INT)}),
    ("varlen feature list step of kind unset",
     listed(int64_list(1), UNSET, int64_list(2)), {}, {"a": varlen(INT)}),
    ("varlen feature list of the wrong kind",
     listed(float_list(1)), {}, {"a": varlen(INT)}),
    ("varlen feature list of two kinds",
     listed(int64_list(1), float_list(2)), {}, {"a": varlen(INT)}),
    ("varlen feature list step of no values of the wrong kind",
     listed(int64_list(1), part(2)), {}, {"a": varlen(INT)}),

    # Encoding.
    ("truncated message", MESSAGE[:-1],
     {"label": fixed(INT)}, {"tokens": sequence(INT)}),
    ("truncated message, cut between fields", one(int64_list(1)),
     {"a": fixed(INT)}, {"b": sequence(INT, allow_missing=True)}),
    ("message cut in a list that is not asked for", MESSAGE[:-1],
     {"label": fixed(INT)}, {}),
    ("duplicate map key: last wins",
     context(entry(A, int64_list(1)), entry(A, int64_list(2))),
     {"a": fixed(INT)}, {}),
    ("duplicate map key of two kinds: last wins",
     context(entry(A, float_list(1)), entry(A, int64_list(2))),
     {"a": fixed(INT)}, {}),
    ("duplicate map key: last is of the wrong kind",
     context(entry(A, int64_list(2)), entry(A, float_list(1))),
     {"a": fixed(INT)}, {}),
    ("duplicate map key: last is of kind unset",
     context(entry(A, int64_list(2)), entry(A, UNSET)), {"a": fixed(INT)}, {}),
    ("duplicate map key, varlen context feature",
     context(entry(A, int64_list(1)), entry(A, int64_list(2))),
     {"a": varlen(INT)}, {}),
    ("duplicate map key of a feature list: last wins",
     lists(entry(A, steps(int64_list(1))), entry(A, steps(int64_list(2)))),
     {}, {"a": sequence(INT)}),
    ("duplicate map key of a varlen feature list",
     lists(entry(A, steps(int64_list(1))), entry(A, steps(int64_list(2)))),
     {}, {"a": varlen(INT)}),
    ("context twice", one(int64_list(1)) + context(entry(B, int64_list(2))),
     {"a": fixed(INT), "b": fixed(INT)}, {}),
    ("context twice, with the same key",
     one(int64_list(1)) + one(int64_list(2)), {"a": fixed(INT)}, {}),
    ("feature lists twice",
     listed(int64_list(1)) + lists(entry(B, steps(int64_list(2)))),
     {}, {"a": sequence(INT), "b": sequence(INT)}),
    ("feature lists before the context",
     listed(int64_list(1)) + context(entry(B, int64_list(2))),
     {"b": fixed(INT)}, {"a": sequence(INT)}),
    ("map entry with the value first",
     context(part(1, part(2, int64_list(1)), part(1, A))),
     {"a": fixed(INT)}, {}),
    ("map entry without a key",
     context(part(1, part(2, int64_list(1)))), {"": fixed(INT)}, {}),
    ("map entry with two keys",
     context(part(1, part(1, B), part(1, A), part(2, int64_list(1)))),
     {"a": fixed(INT)}, {}),
    ("map entry with two values",
     context(part(1, part(1, A), part(2, int64_list(1)),
                  part(2, int64_list(2)))), {"a": varlen(INT)}, {}),
    ("map entry without a value, with a default",
     context(part(1, part(1, A))), {"a": fixed(INT, default=7)}, {}),
    ("feature of two kinds", one(float_list(1) + int64_list(2)),
     {"a": fixed(INT)}, {}),
    ("feature of one kind twice", one(int64_list(1) + int64_list(2)),
     {"a": varlen(INT)}, {}),
    ("feature list step of one kind twice",
     listed(int64_list(1) + int64_list(2)), {}, {"a": varlen(INT)}),
    ("unpacked repeated fields",
     context(entry(A, part(3, *(tag(1, VARINT) + varint(n) for n in (1, -2)))),
             entry(B, part(2, *(tag(1, FIXED32) + f32(x) for x in (0.5, -8))))),
     {"a": fixed(INT, 2), "b": fixed(FLOAT, 2)}, {}),
    ("unpacked repeated fields in a feature list",
     lists(entry(A, steps(part(3, *(tag(1, VARINT) + varint(n)
                                    for n in (1, -2))))),
           entry(B, steps(part(2, *(tag(1, FIXED32) + f32(x)
                                    for x in (0.5, -8)))))),
     {}, {"a": sequence(INT, 2), "b": sequence(FLOAT, 2)}),
    ("packed and unpacked values of one feature",
     one(part(3, packed(1), tag(1, VARINT), varint(2), packed(3, 4))),
     {"a": varlen(INT)}, {}),
    ("packed in two pieces", one(part(3, packed(1, 2), packed(3))),
     {"a": fixed(INT, 3)}, {}),
    ("packed floats of five bytes", one(part(2, part(1, f32(1), b"\0"))),
     {"a": varlen(FLOAT)}, {}),
    ("packed floats of five bytes in a feature list",
     listed(part(2, part(1, f32(1), b"\0"))), {}, {"a": varlen(FLOAT)}),
    ("packed integers that end inside a varint",
     one(part(3, part(1, b"\1\x80"))), {"a": varlen(INT)}, {}),
    ("varint longer than it need be",
     one(part(3, part(1, b"\x81\x80\x80\0"))), {"a": fixed(INT)}, {}),
    ("varint of eleven bytes",
     one(part(3, part(1, b"\xff" * 10 + b"\1"))), {"a": fixed(INT)}, {}),
    ("varint of ten bytes with bits above 64",
     one(part(3, part(1, b"\xff" * 9 + b"\x7f"))), {"a": fixed(INT)}, {}),
    ("unknown fields in all messages",
     tag(9, VARINT) + varint(5) + part(1, part(1, part(1, A), part(
         2, part(3, packed(1), tag(7, FIXED64), bytes(8)),
         tag(8, FIXED32), bytes(4)), part(3, b"z"))) + part(15, b"q"),
     {"a": fixed(INT)}, {}),
    ("unknown fields outside of context and feature lists",
     tag(9, VARINT) + varint(5) + one(int64_list(1)) + part(15, b"q")
     + tag(7, FIXED64) + bytes(8) + tag(8, FIXED32) + bytes(4),
     {"a": fixed(INT)}, {}),
    ("unknown field after a kind", one(int64_list(1) + part(9, b"q")),
     {"a": fixed(INT)}, {}),
    ("unknown field before a kind", one(part(9, b"q") + int64_list(1)),
     {"a": fixed(INT)}, {}),
    ("unknown group", tag(9, 3) + tag(1, VARINT) + varint(5) + tag(9, 4)
     + one(int64_list(1)), {"a": fixed(INT)}, {}),
    ("unknown group that does not end",
     one(int64_list(1)) + tag(9, 3), {"a": fixed(INT)}, {}),
    ("known field of another wire type",
     tag(1, VARINT) + varint(5) + one(int64_list(1)), {"a": fixed(INT)}, {}),
    ("values of another wire type",
     one(part(3, tag(1, FIXED32), bytes(4))), {"a": varlen(INT)}, {}),
    ("field number 0", one(int64_list(1)) + b"\0\0", {"a": fixed(INT)}, {}),
    ("wire type 6", one(int64_list(1)) + b"\x7e", {"a": fixed(INT)}, {}),
    ("field that is longer than its message",
     context(part(1, part(1, A), b"\x12\x09\x1a\x03\x0a\x01\x01")),
     {"a": fixed(INT)}, {}),
    ("invalid UTF-8 in a key",
     context(entry(b"\xff\xfe", int64_list(1)), entry(A, int64_list(2))),
     {"a": fixed(INT)}, {}),
    ("invalid UTF-8 in a key of a feature list",
     lists(entry(b"\xff\xfe", steps(int64_list(1))),
           entry(A, steps(int64_list(2)))), {}, {"a": sequence(INT)}),
    ("invalid UTF-8 in a value", one(bytes_list(b"\xff\0\xfe")),
     {"a": fixed(STRING)}, {}),
    ("Example instead of a SequenceExample",
     part(1, entry(A, int64_list(1))), {"a": fixed(INT)}, {}),
]


# ---- Calls that read a TFRecord file.

RECORDS = [b"one", b"second"]
FIRST = 19  # bytes of the first record: 8 + 4 + 3 + 4


def flip(data, index):
    """One bit of that byte is another one."""
    changed = bytearray(data)
    changed[index] ^= 1
    return bytes(changed)


def gzipped(data):
    # wbits: a gzip header, without a time.
    stream = zlib.compressobj(wbits=31)
    return stream.compress(data) + stream.flush()


def files(plain, gz, zl):
    """(call, the bytes of the file, compression type), made from the file of
    RECORDS in the three compressions."""
    return [
        ("TFRecord: payload byte flipped", flip(plain, 13), ""),
        ("TFRecord: length byte flipped", flip(plain, 0), ""),
        ("TFRecord: truncated in payload", plain[:14], ""),
        ("TFRecord: truncated in header", plain[:5], ""),
        ("TFRecord: empty file", b"", ""),
        ("TFRecord: byte of the length crc flipped", flip(plain, 8), ""),
        ("TFRecord: byte of the data crc flipped", flip(plain, 15), ""),
        ("TFRecord: payload byte of the second record flipped",
         flip(plain, FIRST + 13), ""),
        ("TFRecord: truncated in the length", plain[:FIRST + 3], ""),
        ("TFRecord: truncated between the length and its crc",
         plain[:FIRST + 8], ""),
        ("TFRecord: truncated in the length crc", plain[:FIRST + 10], ""),
        ("TFRecord: truncated after the header", plain[:FIRST + 12], ""),
        ("TFRecord: truncated before the data crc", plain[:-4], ""),
        ("TFRecord: truncated in the data crc", plain[:-1], ""),
        ("TFRecord: three bytes after the last record", plain + b"xyz", ""),
        ("TFRecord: twelve bytes after the last record",
         plain + bytes(12), ""),
        ("TFRecord: gzip stream cut short", gz[:-12], "GZIP"),
        ("TFRecord: gzip stream cut in its header", gz[:5], "GZIP"),
        ("TFRecord: gzip stream cut in its trailer", gz[:-1], "GZIP"),
        ("TFRecord: gzip stream without its trailer", gz[:-8], "GZIP"),
        ("TFRecord: gzip crc flipped", flip(gz, len(gz) - 8), "GZIP"),
        ("TFRecord: gzip length flipped", flip(gz, len(gz) - 1), "GZIP"),
        ("TFRecord: gzip file read as plain", gz, ""),
        ("TFRecord: plain file read as gzip", plain, "GZIP"),
        ("TFRecord: plain file read as zlib", plain, "ZLIB"),
        ("TFRecord: zlib file read as gzip", zl, "GZIP"),
        ("TFRecord: gzip file read as zlib", gz, "ZLIB"),
        ("TFRecord: zlib file read as plain", zl, ""),
        ("TFRecord: zlib stream cut short", zl[:-8], "ZLIB"),
        ("TFRecord: zlib stream without its trailer", zl[:-4], "ZLIB"),
        ("TFRecord: zlib checksum flipped", flip(zl, len(zl) - 1), "ZLIB"),
        ("TFRecord: deflate stream without zlib header", zl[2:-4], "ZLIB"),
        ("TFRecord: gzip of two members", gz + gz, "GZIP"),
        ("TFRecord: gzip header with a file name",
         gz[:3] + b"\x08" + gz[4:10] + b"name\0" + gz[10:], "GZIP"),
        ("TFRecord: bytes after a gzip stream", gz + b"garbage!", "GZIP"),
        ("TFRecord: zeros after a gzip stream", gz + bytes(8), "GZIP"),
        ("TFRecord: two zlib streams", zl + zl, "ZLIB"),
        ("TFRecord: bytes after a zlib stream", zl + b"garbage!", "ZLIB"),
        ("TFRecord: gzip of a file truncated in header",
         gzipped(plain[:FIRST + 10]), "GZIP"),
        ("TFRecord: gzip of a file truncated in payload",
         gzipped(plain[:FIRST + 14]), "GZIP"),
        ("TFRecord: gzip of an empty file", gzipped(b""), "GZIP"),
        ("TFRecord: empty file read as gzip", b"", "GZIP"),
        ("TFRecord: empty file read as zlib", b"", "ZLIB"),
    ]


# ---- Calls of batches and queues.

def ragged():
    """Rows of 0, 1 and 2 elements."""
    rows = tf.data.Dataset.range(3).map(tf.range)
    return tf.data.make_one_shot_iterator(rows).get_next()


def queue(shape=(None,)):
    return tf.queue.PaddingFIFOQueue(9, [tf.int64], [shape])


def filled(session, rows):
    """A queue with these rows, closed."""
    fifo = queue()
    for row in rows:
        session.run(fifo.enqueue([tf.constant(row, tf.int64)]))
    session.run(fifo.close())
    return fifo


ROWS = [[1], [2, 3], [4, 5, 6]]
QUEUES = [
    ("batch of an unknown dimension without dynamic_pad",
     lambda session: tf.train.batch([ragged()], 2)),
    ("batch of an unknown rank with dynamic_pad",
     lambda session: tf.train.batch(
         [tf.placeholder(tf.int64)], 2, dynamic_pad=True)),
    ("PaddingFIFOQueue of an unknown rank",
     lambda session: queue(None)),
    ("PaddingFIFOQueue without shapes",
     lambda session: tf.queue.PaddingFIFOQueue(9, [tf.int64], [])),
    ("PaddingFIFOQueue: enqueue of another rank", lambda session: session.run(
        queue().enqueue([tf.constant([[1]], tf.int64)]))),
    ("PaddingFIFOQueue: enqueue of another known dimension",
     lambda session: session.run(queue([None, 2]).enqueue(
         [tf.constant([[1, 2, 3]], tf.int64)]))),
    ("PaddingFIFOQueue: enqueue after close",
     lambda session: session.run(filled(session, []).enqueue(
         [tf.constant([1], tf.int64)]))),
    ("PaddingFIFOQueue: dequeue of an empty queue that is closed",
     lambda session: session.run(filled(session, []).dequeue())),
    ("PaddingFIFOQueue: dequeue_many of more than are left",
     lambda session: session.run(filled(session, ROWS).dequeue_many(4))),
    ("PaddingFIFOQueue: dequeue_many of all that are left",
     lambda session: session.run(filled(session, ROWS).dequeue_many(3))),
    ("PaddingFIFOQueue: dequeue_many of none",
     lambda session: session.run(filled(session, ROWS).dequeue_many(0))),
    ("PaddingFIFOQueue: dequeue_up_to of more than are left",
     lambda session: session.run(filled(session, ROWS).dequeue_up_to(4))),
    ("PaddingFIFOQueue: dequeue_up_to of an empty queue that is closed",
     lambda session: session.run(filled(session, []).dequeue_up_to(4))),
]


# ---- Making them.

LONGEST = 90  # of a message

def message_of(error):
    """What TensorFlow says, without where in the program."""
    lines = getattr(error, "message", None) or str(error)
    lines = lines.split("\n\t [[")[0].split("\nNode: ")[-1].split("\n")
    if len(lines) > 1 and lines[0].startswith("'"):
        lines = lines[1:]
    return lines[0][:LONGEST]


def outcome(make):
    """The class of error of a call, or null and what it gives."""
    with tf.Graph().as_default(), new_session() as session:
        try:
            result = make(session)
        except UnicodeDecodeError:
            # The message of an InvalidArgumentError of TensorFlow 1 holds
            # bytes of the input, which may be no text.
            return {"error": "InvalidArgumentError"}
        except (tf.errors.OpError, TypeError, ValueError) as error:
            return {"error": type(error).__name__,
                    "message": message_of(error)}
    return {"error": None, "result": result}


KINDS = {"i": "int64", "f": "float"}


def exact(value):
    """The JSON of an array: decimal strings, the bits of an f32, or latin-1
    of the bytes."""
    value = np.asarray(value)
    flat = value.reshape(-1)
    if value.dtype.kind == "f":
        values = flat.view(np.uint32).tolist()
    elif value.dtype.kind == "i":
        values = [str(one) for one in flat.tolist()]
    else:
        values = [one.decode("latin-1") for one in flat.tolist()]
    return {"kind": KINDS.get(value.dtype.kind, "bytes"), "values": values}


def result_of(value):
    if isinstance(value, tf.SparseTensorValue):
        return {**exact(value.values), "indices": value.indices.tolist(),
                "dense_shape": value.dense_shape.tolist()}
    return {**exact(value), "shape": list(np.shape(value))}


def results(*parsed):
    """The JSON of the parsed context and lists, without empty ones."""
    return {name: {key: result_of(part[key]) for key in sorted(part)}
            for name, part in zip(("context", "feature_lists"), parsed)
            if part}


def parse(message, context_specs, list_specs):
    def make(session):
        return results(*session.run(tf.io.parse_single_sequence_example(
            tf.constant(message), features(context_specs),
            features(list_specs))))
    return make


def parse_tf1(message, context_specs, list_specs):
    """The same with the op of TensorFlow 1, as its function calls it."""
    def chosen(specs, sparse):
        return [(key, spec) for key, spec in sorted(specs.items())
                if (spec["type"] == "VarLenFeature") == sparse]

    def names(specs):
        return [key for key, _ in specs]

    def types(specs):
        return [getattr(tf, spec["dtype"]) for _, spec in specs]

    def shapes(specs):
        return [spec["shape"] for _, spec in specs]

    def default(spec):
        if "default" not in spec:
            return tf.constant([], spec["dtype"])
        return tf.reshape(tf.constant(spec["default"], spec["dtype"]),
                          spec["shape"])

    sparse, dense = chosen(context_specs, True), chosen(context_specs, False)
    ragged_lists = chosen(list_specs, True)
    dense_lists = chosen(list_specs, False)

    def make(session):
        out = session.run(tensorflow.raw_ops.ParseSingleSequenceExample(
            serialized=tf.constant(message),
            feature_list_dense_missing_assumed_empty=tf.constant(
                [key for key, spec in dense_lists
                 if spec.get("allow_missing")], tf.string),
            context_sparse_keys=names(sparse),
            context_dense_keys=names(dense),
            feature_list_sparse_keys=names(ragged_lists),
            feature_list_dense_keys=names(dense_lists),
            context_dense_defaults=[default(spec) for _, spec in dense],
            debug_name=tf.constant("", tf.string),
            context_sparse_types=types(sparse),
            feature_list_dense_types=types(dense_lists),
            context_dense_shapes=shapes(dense),
            feature_list_sparse_types=types(ragged_lists),
            feature_list_dense_shapes=shapes(dense_lists))._asdict())

        def values(prefix, sparse, dense):
            found = dict(zip(names(sparse), map(
                tf.SparseTensorValue, out[f"{prefix}_sparse_indices"],
                out[f"{prefix}_sparse_values"],
                out[f"{prefix}_sparse_shapes"])))
            found.update(zip(names(dense), out[f"{prefix}_dense_values"]))
            return found
        return results(values("context", sparse, dense),
                       values("feature_list", ragged_lists, dense_lists))
    return make


def parse_calls():
    for call, message, *specs in PARSE:
        made = outcome(parse(message, *specs))
        entry_of_call = {
            "call": call, **made, "serialized": message.hex(),
            **{key: spec for key, spec in zip(
                ("context_features", "sequence_features"), specs) if spec}}
        # Not a class that Python raises before there is an op. Under
        # TensorFlow 1 the op has been run already.
        if not HAS_CONTRIB and made["error"] in (
                None, "InvalidArgumentError"):
            tf1 = outcome(parse_tf1(message, *specs))
            tf1.pop("message", None)
            if any(tf1.get(key) != made.get(key)
                   for key in ("error", "result")):
                entry_of_call["tf1"] = tf1
        yield entry_of_call


def file_calls():
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"

        def read(compression):
            records = []

            def make(session):
                following = tf.data.make_one_shot_iterator(
                    tf.data.TFRecordDataset(
                        str(path), compression)).get_next()
                try:
                    while True:
                        records.append(session.run(following))
                except tf.errors.OutOfRangeError:
                    return None
            made = outcome(make)
            made.pop("result", None)
            return {**made, "records": len(records)}

        def written(compression):
            with tf.io.TFRecordWriter(
                    str(path), tf.io.TFRecordOptions(compression)) as writer:
                for record in RECORDS:
                    writer.write(record)
            return path.read_bytes()

        for call, data, compression in files(
                *map(written, ("", "GZIP", "ZLIB"))):
            path.write_bytes(data)
            yield {"call": call, **read(compression), "file": data.hex(),
                   "compression_type": compression}
        path.unlink()
        missing = read("")
        missing["message"] = missing["message"].replace(str(path), "file")
        yield {"call": "TFRecord: no such file", **missing}


def queue_calls():
    for call, make in QUEUES:
        made = outcome(make)
        result = made.pop("result", None)
        if isinstance(result, np.ndarray):
            made["result"] = result_of(result)
        yield {"call": call, **made}


def calls():
    """All calls, those that read records at the end."""
    yield from parse_calls()
    yield from file_calls()
    yield from queue_calls()
