# TensorFlow's tutorial on language models (ptb_word_lm.py), on the beginning of Moby-Dick.
# TensorFlow 1.15.
import collections
import numpy as np
import tensorflow as tf

hidden_size = 64
num_layers = 2
num_steps = 20
batch_size = 20
keep_prob = 0.9
max_grad_norm = 5
init_scale = 0.1
max_epoch, max_max_epoch = 3, 4
lr_decay = 0.5


def read():
    with open("../../../data/moby-dick.txt", encoding="utf-8") as f:
        words = f.read().split()[:16000]
    common = collections.Counter(words).most_common(500)
    word_to_id = {word: i + 2 for i, (word, _) in enumerate(common)}
    ids = np.array([word_to_id.get(word, 1) for word in words])
    held_out = len(ids) // 10
    return ids[:-held_out], ids[-held_out:], len(word_to_id) + 2


def windows(ids):
    row = (len(ids) - 1) // batch_size
    x = ids[:row * batch_size].reshape(batch_size, row)
    y = ids[1:row * batch_size + 1].reshape(batch_size, row)
    for start in range(0, row - num_steps + 1, num_steps):
        yield x[:, start:start + num_steps], y[:, start:start + num_steps]


class PTBModel(object):
    def __init__(self, is_training, vocab_size):
        self.input = tf.placeholder(tf.int32, [batch_size, num_steps])
        self.targets = tf.placeholder(tf.int32, [batch_size, num_steps])
        embedding = tf.get_variable("embedding", [vocab_size, hidden_size])
        inputs = tf.nn.embedding_lookup(embedding, self.input)

        def make_cell():
            cell = tf.nn.rnn_cell.BasicLSTMCell(hidden_size, forget_bias=0.0)
            if is_training:
                cell = tf.nn.rnn_cell.DropoutWrapper(cell, output_keep_prob=keep_prob)
            return cell

        cell = tf.nn.rnn_cell.MultiRNNCell([make_cell() for _ in range(num_layers)])
        self.initial_state = cell.zero_state(batch_size, tf.float32)
        outputs, self.final_state = tf.nn.dynamic_rnn(
            cell, inputs, initial_state=self.initial_state, scope="RNN")
        output = tf.reshape(outputs, [-1, hidden_size])
        softmax_w = tf.get_variable("softmax_w", [hidden_size, vocab_size])
        softmax_b = tf.get_variable(
            "softmax_b", [vocab_size], initializer=tf.zeros_initializer())
        logits = tf.nn.xw_plus_b(output, softmax_w, softmax_b)
        logits = tf.reshape(logits, [batch_size, num_steps, vocab_size])
        loss = tf.contrib.seq2seq.sequence_loss(
            logits, self.targets, tf.ones([batch_size, num_steps]),
            average_across_timesteps=False, average_across_batch=True)
        self.cost = tf.reduce_sum(loss)
        if not is_training:
            return
        self.lr = tf.Variable(0.0, trainable=False)
        tvars = tf.trainable_variables()
        grads, _ = tf.clip_by_global_norm(tf.gradients(self.cost, tvars), max_grad_norm)
        optimizer = tf.train.GradientDescentOptimizer(self.lr)
        self.train_op = optimizer.apply_gradients(zip(grads, tvars))


def run_epoch(session, model, ids, eval_op=None):
    costs, iters = 0.0, 0
    state = session.run(model.initial_state)
    fetches = {"cost": model.cost, "final_state": model.final_state}
    if eval_op is not None:
        fetches["eval_op"] = eval_op
    for x, y in windows(ids):
        feed_dict = {model.input: x, model.targets: y}
        for i, (c, h) in enumerate(model.initial_state):
            feed_dict[c] = state[i].c
            feed_dict[h] = state[i].h
        vals = session.run(fetches, feed_dict)
        costs += vals["cost"]
        state = vals["final_state"]
        iters += num_steps
    return np.exp(costs / iters)


train, valid, vocab_size = read()
tf.set_random_seed(42)
initializer = tf.random_uniform_initializer(-init_scale, init_scale)
with tf.variable_scope("Model", reuse=None, initializer=initializer):
    m = PTBModel(True, vocab_size)
with tf.variable_scope("Model", reuse=True, initializer=initializer):
    mvalid = PTBModel(False, vocab_size)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for i in range(max_max_epoch):
        learning_rate = lr_decay ** max(i + 1 - max_epoch, 0.0)
        m.lr.load(learning_rate, session)
        print("Epoch: %d Learning rate: %.3f" % (i + 1, learning_rate))
        perplexity = run_epoch(session, m, train, m.train_op)
        print("Epoch: %d Train Perplexity: %.3f" % (i + 1, perplexity))
        print("Epoch: %d Valid Perplexity: %.3f" % (i + 1, run_epoch(session, mvalid, valid)))
