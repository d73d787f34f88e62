"""The input pipeline of tf.data, for comparison with ours: prints a line of JSON for each form.

    python bench/input_tensorflow.py --file FILE --batch 64 --threads 2 --form both

FILE is a plain TFRecord file of SequenceExamples: `label` and `length` (int64) in the context,
lists `values` (float, 16 per step) and `labels` (int64, one per step). A run reads the whole file,
parses, pads and batches; nothing is copied out of TensorFlow. `single` parses one example at a
time, `batched` one batch at a time. With `--bucket`, `single` forms batches of examples of similar
length. `checksum` is the sum of `labels`; `max_rss_kib` is the peak memory of the process so far.
Needs tensorflow 2.
"""

import argparse
import os

import common

WIDTH = 16  # of a step of `values`
BOUNDARIES = [50, 100, 150]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", required=True)
    for name, default in [("batch", 64), ("threads", 2), ("repeats", 5)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    forms = ["single", "batched", "both"]
    parser.add_argument("--form", choices=forms, default="both")
    parser.add_argument("--bucket", action="store_true", help="the form single, by length")
    args = parser.parse_args()
    args.workload = "input"
    common.limit_threads(args.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return args


args = arguments()

import tensorflow as tf

tf.config.threading.set_inter_op_parallelism_threads(args.threads)
tf.config.threading.set_intra_op_parallelism_threads(args.threads)

CONTEXT = {name: tf.io.FixedLenFeature([], tf.int64) for name in ["label", "length"]}
LISTS = {
    "values": tf.io.FixedLenSequenceFeature([WIDTH], tf.float32),
    "labels": tf.io.FixedLenSequenceFeature([], tf.int64),
}


def single(records):
    examples = records.map(
        lambda record: tf.io.parse_single_sequence_example(record, CONTEXT, LISTS), tf.data.AUTOTUNE
    )
    if args.bucket:
        return examples.bucket_by_sequence_length(
            lambda context, lists: tf.cast(context["length"], tf.int32),
            BOUNDARIES,
            [args.batch] * (len(BOUNDARIES) + 1),
        )
    return examples.padded_batch(args.batch)


def batched(records):
    # The parser's dense outputs are already padded.
    return records.batch(args.batch).map(
        lambda batch: tf.io.parse_sequence_example(batch, CONTEXT, LISTS)[:2], tf.data.AUTOTUNE
    )


def pipeline(form):
    options = tf.data.Options()
    options.threading.private_threadpool_size = args.threads
    options.threading.max_intra_op_parallelism = args.threads
    dataset = form(tf.data.TFRecordDataset(args.file))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def one_pass(dataset):
    for _ in dataset:
        pass


def totals(dataset):
    """The amount of data that a pass reads, to check that two pipelines read the same. Also warms
    up."""
    examples = batches = steps = checksum = 0
    for context, lists in dataset:
        examples += len(context["length"])
        batches += 1
        steps += int(tf.reduce_sum(context["length"]))
        # Padding is 0 and adds nothing.
        checksum += int(tf.reduce_sum(lists["labels"]))
    return {"examples": examples, "batches": batches, "steps": steps, "checksum": checksum}


forms = {"single": [single], "batched": [batched], "both": [single, batched]}[args.form]
for form in forms:
    args.mode = "bucketed" if form is single and args.bucket else form.__name__
    dataset = pipeline(form)
    read = totals(dataset)
    times = sorted(common.timed(lambda: one_pass(dataset)) for _ in range(args.repeats))
    common.report(
        args, "tensorflow", tf.__version__, times, **read, max_rss_kib=common.status("VmHWM")
    )
