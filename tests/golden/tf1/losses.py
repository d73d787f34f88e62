"""Losses of sequences, masks and clips of one batch of logits."""

import numpy as np

from .drivers import length_tensor
from .graph import Feeds, flatten, new_session, tf

# TensorFlow 2.15 has no tf.contrib; the two functions below are what
# tf.contrib.seq2seq.sequence_loss and the legacy list form compute.


def sequence_loss(logits, targets, weights, across_time=None,
                  across_batch=None):
    """`across_*`: None, "avg" (divide by the sum of the weights on that
    axis) or "sum" (divide by the number of nonzero weights)."""
    crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=targets, logits=logits) * weights
    modes = {1: across_time, 0: across_batch}
    axes = [axis for axis, mode in modes.items() if mode]
    if not axes:
        return crossent
    if modes[axes[0]] == "avg":
        divisor = tf.reduce_sum(weights, axes)
    else:
        divisor = tf.cast(tf.math.count_nonzero(weights, axes), weights.dtype)
    return tf.div_no_nan(tf.reduce_sum(crossent, axes), divisor)


def legacy_loss_by_example(logits, targets, weights, average):
    crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=targets, logits=logits) * weights
    total = tf.reduce_sum(crossent, 1)
    if average:
        total /= tf.reduce_sum(weights, 1) + 1e-12
    return total


def run_losses(case, draw):
    batch, time, classes = case["B"], case["T"], case["V"]
    feeds = Feeds()
    lengths = length_tensor(case)
    mask = (np.arange(time) < lengths[:, None]).astype(draw.dtype)
    tensors = {
        "logits": draw.normal([batch, time, classes], 2.0),
        "targets": draw.integers([batch, time], 0, classes),
        "sequence_length": lengths,
        "weights/ones": np.ones_like(mask),
        "weights/mask": mask,
        "weights/fractional": mask * draw.uniform(mask.shape, 0.25, 2.0),
    }
    given = {key: feeds.add(value) for key, value in tensors.items()}
    logits, targets = given["logits"], given["targets"]
    lengths = given["sequence_length"]

    fetches = {}
    for kind in ("ones", "mask", "fractional"):
        arguments = logits, targets, given[f"weights/{kind}"]
        per_row = legacy_loss_by_example(*arguments, average=True)
        losses = {
            "none": sequence_loss(*arguments),
            "avg_time_avg_batch": sequence_loss(*arguments, "avg", "avg"),
            "avg_time": sequence_loss(*arguments, across_time="avg"),
            "avg_batch": sequence_loss(*arguments, across_batch="avg"),
            "sum_time_sum_batch": sequence_loss(*arguments, "sum", "sum"),
            "sum_time": sequence_loss(*arguments, across_time="sum"),
            "sum_batch": sequence_loss(*arguments, across_batch="sum"),
            "legacy_by_example_avg": per_row,
            "legacy_by_example_sum": legacy_loss_by_example(
                *arguments, average=False),
            "legacy_sum_batch": tf.reduce_sum(per_row),
            "legacy_avg_batch": tf.reduce_sum(per_row) / batch,
        }
        for name, value in losses.items():
            key = f"sequence_loss/{kind}/{name}"
            fetches[key] = value
            fetches[f"grad/{key}"] = tf.gradients(value, logits)[0]

    softmax = tf.nn.softmax(logits)
    fetches.update({
        "softmax": softmax,
        "crossent": tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=targets, logits=logits),
        # Dense labels: the softmax of the time-reversed logits.
        "softmax_crossent_dense": tf.nn.softmax_cross_entropy_with_logits_v2(
            labels=tf.reverse(softmax, [1]), logits=logits),
        "mse": tf.reduce_mean(tf.square(logits - 0.25)),
        "in_top_1": tf.nn.in_top_k(
            tf.cast(tf.reshape(logits, [-1, classes]), tf.float32),
            tf.reshape(targets, [-1]), 1),
        "sequence_mask": tf.sequence_mask(lengths, time),
        "sequence_mask_default_maxlen": tf.sequence_mask(lengths),
        "sign_mask": tf.sign(tf.cast(targets, draw.dtype)),
        "reverse_sequence/batch_major": tf.reverse_sequence(
            logits, lengths, seq_axis=1, batch_axis=0),
        "reverse_sequence/time_major": tf.reverse_sequence(
            tf.transpose(logits, [1, 0, 2]), lengths,
            seq_axis=0, batch_axis=1),
        "clip_by_value": tf.clip_by_value(logits, -0.7, 0.9),
        "clip_by_norm": tf.clip_by_norm(logits, 2.0),
    })
    for name, clip_norm in (("active", 1.5), ("inactive", 1000.0)):
        clipped, norm = tf.clip_by_global_norm(
            [logits, given["weights/fractional"]], clip_norm)
        fetches.update(flatten(f"clip_by_global_norm/{name}", clipped))
        fetches[f"clip_by_global_norm/{name}/norm"] = norm

    with new_session() as session:
        tensors.update(session.run(fetches, feeds))
    return tensors
