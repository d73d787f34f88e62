"""TensorFlow in graph mode, and the numbers of a graph."""

import os

# oneDNN kernels sum in an order that depends on the machine.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow  # noqa: E402

tf = tensorflow.compat.v1
tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)

# tf.contrib went away with TensorFlow 2.
HAS_CONTRIB = tensorflow.__version__.startswith("1.")


class Feeds(dict):
    """feed_dict that remembers which value goes into which placeholder."""

    def add(self, value):
        placeholder = tf.placeholder(value.dtype, value.shape)
        self[placeholder] = value
        return placeholder

    def add_nest(self, sizes, make):
        """The nest of placeholders whose values `make(size)` gives."""
        return tf.nest.map_structure(lambda size: self.add(make(size)), sizes)


def flatten(prefix, value):
    """{key: leaf} of a tensor, an LSTMStateTuple or a tuple of these."""
    if hasattr(value, "_fields"):
        parts = zip(value._fields, value)
    elif isinstance(value, (tuple, list)):
        parts = ((str(i), part) for i, part in enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, part in parts
            for key, leaf in flatten(f"{prefix}/{name}", part).items()}


def new_session():
    # One thread: the same sums in the same order on every run.
    return tf.Session(config=tf.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1))


# Weights whose values mean something: a time, a share. Drawn from here.
RANGES = {"period": (3.0, 6.0), "phase": (0.0, 1.5), "ratio_on": (0.3, 0.7)}


def draw_weights(draw, scale):
    """{key: (variable, value)} for all variables, biases included."""
    def value(name, variable):
        shape = variable.shape.as_list()
        if name.split("/")[-1] in RANGES:
            return draw.uniform(shape, *RANGES[name.split("/")[-1]])
        return draw.normal(shape, scale)

    variables = {v.op.name: v for v in tf.global_variables()}
    return {f"weights/{name}": (v, value(name, v))
            for name, v in sorted(variables.items())}


def initial_state(case, draw, feeds, cell):
    """A random state of a cell, whatever its form."""
    return feeds.add_nest(cell.state_size, lambda size: draw.normal(
        [case["B"]] + tf.TensorShape(size).as_list(), 0.5))


def differentiate(case, draw, feeds, inputs, results, recorded=()):
    """The tensors of a file, with values and gradients of a random weighting
    of `results` and the tensors of `recorded`; notes in the header what has
    no gradient."""
    weights = draw_weights(draw, case.get("weight_scale", 0.5))
    shapes = {key: value.shape for key, value in results.items()}
    if not all(shape.is_fully_defined() for shape in shapes.values()):
        # How long a loop runs may depend on its numbers.
        shapes = {key: value.shape for key, value
                  in run(results, feeds, weights).items()}
    weightings = {f"R/{key}": draw.normal(tuple(shapes[key]))
                  for key, value in results.items()
                  if value.dtype.is_floating}
    loss = tf.add_n([tf.reduce_sum(results[key[2:]] * feeds.add(value))
                     for key, value in weightings.items()])

    sources = {key: variable for key, (variable, _) in weights.items()
               if variable.trainable}
    sources.update((key, source) for key, source in inputs.items()
                   if source.dtype.is_floating)
    gradients = dict(zip(sources, tf.gradients(loss, list(sources.values()))))
    missing = sorted(key for key in {**weights, **sources}
                     if gradients.get(key) is None)
    if missing:
        case["no_gradient"] = missing

    fetches = {**results, "loss": loss, **dict(recorded)}
    # The gradient of a table may be of some of its rows.
    fetches.update((f"grad/{key}", tf.convert_to_tensor(g))
                   for key, g in gradients.items() if g is not None)
    tensors = {key: value for key, (_, value) in weights.items()}
    tensors.update(run(fetches, feeds, weights))
    tensors.update(weightings)
    tensors.update((key, feeds[p]) for key, p in inputs.items())
    return tensors


def run(fetches, feeds, weights):
    with new_session() as session:
        for variable, value in weights.values():
            variable.load(value, session)
        return session.run(fetches, feeds)


def in_graph(build):
    """`build` with a graph of its own."""
    def graph(case, draw):
        with tf.Graph().as_default():
            return build(case, draw)
    return graph
