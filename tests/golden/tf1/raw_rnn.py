"""raw_rnn with the loops that README.md names."""

from .cells import build_cell
from .drivers import sequence_lengths, start
from .graph import Feeds, differentiate, flatten, tf


class Loop:
    """A loop: what it starts from, and what it does with a step's output.

    The functions give (next input, next state, emit, next loop state).
    """

    def __init__(self, case, draw, feeds, cell):
        self.case, self.cell, self.inputs = case, cell, {}
        self.depth, self.batch = case["I"], case["B"]
        self.draw, self.feeds = draw, feeds

    def given(self, key, shape):
        self.inputs[f"input/{key}"] = self.feeds.add(self.draw.normal(shape))
        return self.inputs[f"input/{key}"]

    def finished(self, time, output):
        del output
        return time >= self.lengths

    def begin(self, state):
        return self.x, state, None, None

    def step(self, time, output, state, loop_state):
        raise NotImplementedError


class DynamicEquiv(Loop):
    def build(self):
        x = self.given("x", [self.case["T"], self.batch, self.depth])
        self.array = tf.TensorArray(x.dtype, self.case["T"]).unstack(x)
        self.zeros = tf.zeros([self.batch, self.depth], x.dtype)

    def read(self, time):
        return tf.cond(tf.reduce_all(self.finished(time, None)),
                       lambda: self.zeros, lambda: self.array.read(time))

    def begin(self, state):
        return self.read(tf.constant(0)), state, None, None

    def step(self, time, output, state, loop_state):
        return self.read(time), state, output, None


class Feedback(Loop):
    def build(self):
        self.x = self.given("x", [self.batch, self.depth])

    def step(self, time, output, state, loop_state):
        return output, state, output, None


class DataStop(Feedback):
    def finished(self, time, output):
        if output is None:
            return tf.zeros([self.batch], tf.bool)
        return tf.logical_or(
            tf.reduce_mean(output, 1) > self.case["threshold"],
            time >= self.case["T"])


class GreedyDecoder(Loop):
    def build(self):
        dtype, classes = self.draw.dtype, self.case["V"]
        self.ids = self.feeds.add(
            self.draw.integers([self.batch], 0, classes))
        self.inputs["input/x"] = self.ids
        self.embedding = tf.get_variable(
            "embedding", [classes, self.depth], dtype)
        with tf.variable_scope("proj"):
            self.kernel = tf.get_variable(
                "kernel", [self.cell.output_size, classes], dtype)
            self.bias = tf.get_variable("bias", [classes], dtype)
        self.zeros = tf.zeros([classes], dtype)

    def begin(self, state):
        emit = self.zeros, tf.zeros([], tf.int32)
        sums = tf.zeros([self.batch, self.case["V"]], self.draw.dtype)
        return (tf.nn.embedding_lookup(self.embedding, self.ids), state,
                emit, (sums, tf.constant(0)))

    def step(self, time, output, state, loop_state):
        logits = tf.matmul(output, self.kernel) + self.bias
        ids = tf.argmax(logits, 1, output_type=tf.int32)
        sums, count = loop_state
        return (tf.nn.embedding_lookup(self.embedding, ids), state,
                (logits, ids), (sums + logits, count + 1))


class ScaleState(Loop):
    def build(self):
        self.x = self.given("x", [self.batch, self.depth])
        self.k = self.given("k", [self.batch, 1])

    def begin(self, state):
        emit = tf.zeros([2 * self.cell.output_size], self.x.dtype)
        return self.x, state, emit, self.k

    def step(self, time, output, state, loop_state):
        state = tf.nest.map_structure(lambda s: 0.5 * s, state)
        # None keeps the loop state.
        return (self.x * loop_state, state,
                tf.concat([output, -output], 1), None)


LOOPS = {"dynamic_equiv": DynamicEquiv, "feedback": Feedback,
         "data_stop": DataStop, "greedy_decoder": GreedyDecoder,
         "scale_state": ScaleState}


def run_raw_rnn(case, draw):
    feeds, tensors = Feeds(), {}
    cell = build_cell(case["cell"], draw.dtype)
    loop = LOOPS[case["loop_fn"]](case, draw, feeds, cell)
    loop.build()
    lengths = sequence_lengths(case, feeds, tensors)
    loop.lengths = lengths.get("sequence_length")
    state = start(case, draw, feeds, cell, loop.inputs).get(
        "initial_state", cell.zero_state(case["B"], draw.dtype))

    def loop_fn(time, output, state_now, loop_state):
        if output is None:
            turn = loop.begin(state)
        else:
            turn = loop.step(time, output, state_now, loop_state)
        next_input, next_state, emit, loop_state = turn
        return (loop.finished(time, output), next_input, next_state, emit,
                loop_state)

    emits, final_state, loop_state = tf.nn.raw_rnn(cell, loop_fn)
    results = {**flatten("outputs", tf.nest.map_structure(
                   lambda array: array.stack(), emits)),
               **flatten("final_state", final_state)}
    if loop_state is not None:
        results.update(flatten("loop_state", loop_state))
    tensors.update(differentiate(case, draw, feeds, loop.inputs, results))
    emitted = tensors["outputs/0" if "outputs/0" in tensors else "outputs"]
    case["steps"] = len(emitted)
    return tensors
