# "Training a Sequence Classifier" of A. Géron's "Hands-On Machine Learning", chapter 14, on the
# part of MNIST in data/mnist-sample. TensorFlow 1.15.
import gzip
import numpy as np
import tensorflow as tf

n_steps = 28
n_inputs = 28
n_neurons = 150
n_outputs = 10
learning_rate = 0.001
n_epochs = 6
batch_size = 50


def read(part):
    def numbers(name, header):
        with gzip.open("../../../data/mnist-sample/" + part + name) as f:
            return np.frombuffer(f.read(), np.uint8, offset=header)
    images = numbers("-images-idx3-ubyte.gz", 16).reshape(-1, n_steps, n_inputs)
    return images / np.float32(255), numbers("-labels-idx1-ubyte.gz", 8).astype(np.int32)


X_train, y_train = read("train")
X_test, y_test = read("t10k")

tf.set_random_seed(42)
X = tf.placeholder(tf.float32, [None, n_steps, n_inputs])
y = tf.placeholder(tf.int32, [None])
basic_cell = tf.nn.rnn_cell.BasicRNNCell(num_units=n_neurons)
outputs, states = tf.nn.dynamic_rnn(basic_cell, X, dtype=tf.float32)
logits = tf.layers.dense(states, n_outputs)
xentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
loss = tf.reduce_mean(xentropy)
optimizer = tf.train.AdamOptimizer(learning_rate=learning_rate)
training_op = optimizer.minimize(loss)
correct = tf.nn.in_top_k(logits, y, 1)
accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
init = tf.global_variables_initializer()

with tf.Session() as sess:
    init.run()
    for epoch in range(n_epochs):
        order = np.random.RandomState(epoch).permutation(len(X_train))
        for items in np.split(order, len(order) // batch_size):
            X_batch, y_batch = X_train[items], y_train[items]
            sess.run(training_op, feed_dict={X: X_batch, y: y_batch})
        acc_train = accuracy.eval(feed_dict={X: X_batch, y: y_batch})
        acc_test = accuracy.eval(feed_dict={X: X_test, y: y_test})
        print(epoch, "Train accuracy:", acc_train, "Test accuracy:", acc_test)
