"""Trajectories of optimizers."""

from .cells import build_cell
from .graph import Feeds, draw_weights, new_session, tf

ROWS = 7  # of an embedding table


def run_train(case, draw):
    """A few optimizer steps; see `model` in the header."""
    feeds = Feeds()
    batch, units, classes = case["B"], case["H"], case["classes"]
    if case.get("embedding"):
        rows = case.get("rows", ROWS)
        name, given = "input/ids", draw.integers([batch, case["T"]], 0, rows)
        table = tf.get_variable("embedding", [rows, case["I"]], draw.dtype)
        x = tf.nn.embedding_lookup(table, feeds.add(given))
    else:
        name, given = "input/x", draw.normal([batch, case["T"], case["I"]])
        x = feeds.add(given)
    lengths = draw.integers([batch], 1, case["T"] + 1)
    labels = draw.integers([batch], 0, classes)

    _, state = tf.nn.dynamic_rnn(
        build_cell(case["cell"], draw.dtype), x,
        sequence_length=feeds.add(lengths), dtype=draw.dtype)
    with tf.variable_scope("softmax"):
        kernel = tf.get_variable("kernel", [units, classes], draw.dtype)
        bias = tf.get_variable("bias", [classes], draw.dtype)
    logits = tf.matmul(state.h, kernel) + bias
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=feeds.add(labels), logits=logits))

    weights = draw_weights(draw, 1.0)
    variables = {key: variable for key, (variable, _) in weights.items()}
    gradients, global_norm = tf.clip_by_global_norm(
        tf.gradients(loss, list(variables.values())), case["clip_norm"])
    optimizer = getattr(tf.train, case["optimizer"])(**case["options"])
    update = optimizer.apply_gradients(zip(gradients, variables.values()))

    tensors = {name: given, "sequence_length": lengths, "labels": labels}
    with new_session() as session:
        session.run(tf.global_variables_initializer())  # the slots
        for variable, value in weights.values():
            variable.load(value, session)
        for step in range(case["steps"] + 1):
            values = session.run(
                {**variables, "loss": loss, "global_norm": global_norm},
                feeds)
            tensors.update((f"step/{step}/{key}", value)
                           for key, value in values.items())
            if step < case["steps"]:
                session.run(update, feeds)
        tensors.update(session.run(
            {f"slot/{slot}/{v.op.name}": optimizer.get_slot(v, slot)
             for slot in optimizer.get_slot_names()
             for v in variables.values()}))
    return tensors
