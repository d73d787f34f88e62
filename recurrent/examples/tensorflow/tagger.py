# A BiLSTM tagger on sentences whose words are ambiguous. TensorFlow 1.15.
import numpy as np
import tensorflow as tf

TAGS = ["PRON", "DET", "NOUN", "VERB", "MODAL"]
PATTERNS = [
    "they/PRON 1/VERB the/DET 2/NOUN",
    "they/PRON can/MODAL 1/VERB the/DET 2/NOUN",
    "the/DET 1/NOUN will/MODAL 2/VERB",
    "the/DET 1/NOUN can/MODAL 2/VERB",
]
AMBIGUOUS = ["can", "fish", "water", "plant", "paint", "will"]
hidden_size = 16
max_length = 5

sentences = [pattern.replace("1", a).replace("2", b)
             for a in AMBIGUOUS for b in AMBIGUOUS for pattern in PATTERNS]
words = sorted({pair.split("/")[0] for s in sentences for pair in s.split()})
word_to_id = {word: i + 1 for i, word in enumerate(words)}


def get_batch(sentences):
    ids = np.zeros([len(sentences), max_length], np.int32)
    tags = np.zeros([len(sentences), max_length], np.int32)
    lengths = []
    for i, sentence in enumerate(sentences):
        pairs = [pair.split("/") for pair in sentence.split()]
        ids[i, :len(pairs)] = [word_to_id[word] for word, _ in pairs]
        tags[i, :len(pairs)] = [TAGS.index(tag) if tag in TAGS else 0 for _, tag in pairs]
        lengths.append(len(pairs))
    return ids, tags, lengths


train = get_batch([s for i, s in enumerate(sentences) if i % 5 != 2])
test = get_batch([s for i, s in enumerate(sentences) if i % 5 == 2])

tf.set_random_seed(42)
word_ids = tf.placeholder(tf.int32, [None, None])
labels = tf.placeholder(tf.int32, [None, None])
sequence_lengths = tf.placeholder(tf.int32, [None])
embeddings = tf.get_variable("embeddings", [len(words) + 1, hidden_size])
word_embeddings = tf.nn.embedding_lookup(embeddings, word_ids)
cell_fw = tf.nn.rnn_cell.LSTMCell(hidden_size)
cell_bw = tf.nn.rnn_cell.LSTMCell(hidden_size)
(output_fw, output_bw), _ = tf.nn.bidirectional_dynamic_rnn(
    cell_fw, cell_bw, word_embeddings, sequence_length=sequence_lengths, dtype=tf.float32)
output = tf.concat([output_fw, output_bw], axis=-1)
logits = tf.layers.dense(output, len(TAGS))
labels_pred = tf.argmax(logits, axis=-1, output_type=tf.int32)
losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
mask = tf.sequence_mask(sequence_lengths, max_length)
loss = tf.reduce_mean(tf.boolean_mask(losses, mask))
accuracy = tf.reduce_mean(tf.cast(
    tf.boolean_mask(tf.equal(labels_pred, labels), mask), tf.float32))
train_op = tf.train.AdamOptimizer(0.02).minimize(loss)


def feed(batch):
    return {word_ids: batch[0], labels: batch[1], sequence_lengths: batch[2]}


with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for epoch in range(1, 41):
        _, train_loss = sess.run([train_op, loss], feed(train))
        if epoch % 10 == 0:
            right = sess.run(accuracy, feed(test))
            print("epoch %d loss %.4f accuracy %.4f" % (epoch, train_loss, right))
    sentence = "they/? can/? the/? can/?"
    tags = sess.run(labels_pred, feed(get_batch([sentence])))[0]
    print(" ".join(pair.replace("?", TAGS[tag]) for pair, tag in zip(sentence.split(), tags)))
