# The second of ematvey's tutorials on sequence-to-sequence models, with GRUs: a decoder under
# raw_rnn.
# TensorFlow 1.15.
import numpy as np
import tensorflow as tf

PAD = 0
EOS = 1
vocab_size = 8
input_embedding_size = 20
hidden_units = 64
batch_size = 64


def next_batch():
    lengths = np.random.randint(2, 5, batch_size)
    inputs = np.full([batch_size, 4], PAD)
    targets = np.full([batch_size, 5], PAD)
    for i, length in enumerate(lengths):
        inputs[i, :length] = np.random.randint(2, vocab_size, length)
        targets[i, :length] = inputs[i, :length]
        targets[i, length] = EOS
    return inputs, lengths, targets


tf.set_random_seed(42)
np.random.seed(42)
encoder_inputs = tf.placeholder(tf.int32, [None, None])
encoder_inputs_length = tf.placeholder(tf.int32, [None])
decoder_targets = tf.placeholder(tf.int32, [None, None])
embeddings = tf.Variable(tf.random_uniform([vocab_size, input_embedding_size], -1.0, 1.0))
encoder_inputs_embedded = tf.nn.embedding_lookup(embeddings, encoder_inputs)
encoder_cell = tf.nn.rnn_cell.GRUCell(hidden_units)
_, encoder_final_state = tf.nn.dynamic_rnn(
    encoder_cell, encoder_inputs_embedded, sequence_length=encoder_inputs_length,
    dtype=tf.float32, scope="encoder")

decoder_cell = tf.nn.rnn_cell.GRUCell(hidden_units)
decoder_lengths = encoder_inputs_length + 1
W = tf.get_variable("W", [hidden_units, vocab_size])
b = tf.Variable(tf.zeros([vocab_size]))
eos_step_embedded = tf.nn.embedding_lookup(embeddings, tf.fill([batch_size], EOS))
pad_step_embedded = tf.nn.embedding_lookup(embeddings, tf.fill([batch_size], PAD))


def loop_fn_initial():
    return (0 >= decoder_lengths, eos_step_embedded, encoder_final_state, None, None)


def loop_fn_transition(time, previous_output, previous_state, previous_loop_state):
    def get_next_input():
        output_logits = tf.matmul(previous_output, W) + b
        prediction = tf.argmax(output_logits, axis=1)
        return tf.nn.embedding_lookup(embeddings, prediction)
    elements_finished = time >= decoder_lengths
    finished = tf.reduce_all(elements_finished)
    input = tf.cond(finished, lambda: pad_step_embedded, get_next_input)
    return (elements_finished, input, previous_state, previous_output, None)


def loop_fn(time, previous_output, previous_state, previous_loop_state):
    if previous_state is None:
        return loop_fn_initial()
    return loop_fn_transition(time, previous_output, previous_state, previous_loop_state)


decoder_outputs_ta, _, _ = tf.nn.raw_rnn(decoder_cell, loop_fn)
decoder_outputs = tf.transpose(decoder_outputs_ta.stack(), [1, 0, 2])
steps = tf.shape(decoder_outputs)[1]
decoder_logits = tf.tensordot(decoder_outputs, W, [[2], [0]]) + b
decoder_prediction = tf.argmax(decoder_logits, 2)
mask = tf.sequence_mask(decoder_lengths, steps, dtype=tf.float32)
loss = tf.contrib.seq2seq.sequence_loss(decoder_logits, decoder_targets[:, :steps], mask)
optimizer = tf.train.AdamOptimizer(0.005)
gradients, variables = zip(*optimizer.compute_gradients(loss))
gradients, _ = tf.clip_by_global_norm(gradients, 5.0)
train_op = optimizer.apply_gradients(zip(gradients, variables))

with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for batch in range(201):
        inputs, lengths, targets = next_batch()
        fd = {encoder_inputs: inputs, encoder_inputs_length: lengths, decoder_targets: targets}
        predict, l, _ = sess.run([decoder_prediction, loss, train_op], fd)
        if batch % 100 == 0:
            print("batch {}\n  minibatch loss: {}".format(batch, l))
            for i in range(3):
                print("  sample {}: enc input > {} dec prediction > {}".format(
                    i, inputs[i], predict[i]))
