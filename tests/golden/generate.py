#!/usr/bin/env python3
"""Write golden files: what TensorFlow 1.x computes for small random models.

    python generate.py --set fixtures OUT_DIR [--seed N]
    python generate.py --set random --seed 3 --count 40 --size T=70 OUT_DIR
    python generate.py --set records --size examples=40 OUT_DIR

Every case is run twice, in f64 and in f32, from one random draw; the set `records` has no
dtype. README.md describes the files.
"""

from common import arguments, write_all
from tf1 import drivers, fixtures, losses, random_cases, raw_rnn
from tf1 import records, state_saving, surface, training
from tf1.graph import HAS_CONTRIB, in_graph, tensorflow

RUN = {
    "dynamic_rnn": drivers.run_dynamic_rnn,
    "static_rnn": drivers.run_static_rnn,
    "bidirectional_dynamic_rnn": drivers.run_bidirectional,
    "static_bidirectional_rnn": drivers.run_bidirectional,
    "stack_bidirectional_dynamic_rnn": drivers.run_stack_bidirectional,
    "stack_bidirectional_rnn": drivers.run_stack_bidirectional,
    "fused_block_lstm": drivers.run_fused,
    "fused_block_lstm_reversed": drivers.run_fused,
    "raw_rnn": raw_rnn.run_raw_rnn,
    "static_state_saving_rnn": state_saving.run_state_saving,
    "train": training.run_train,
    "losses": losses.run_losses,
}


def all_cases(options):
    """The headers of a set, without those that need tf.contrib where there is
    none."""
    if options.set == "random":
        cases = random_cases.cases(
            options.seed, options.count, dict(options.size), HAS_CONTRIB)
    else:
        cases = {"fixtures": fixtures, "surface": surface}[
            options.set].cases()
    for case in cases:
        if HAS_CONTRIB or not case.get("contrib"):
            yield in_graph(RUN[case["driver"]]), case


def size(text):
    name, value = text.split("=")
    if name not in {**random_cases.SIZES, **records.SIZES}:
        raise ValueError(name)
    values = [int(part) for part in value.split(",")]
    return name, values if "," in value else values[0]


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--set", default="fixtures",
                        choices=("fixtures", "surface", "random",
                                 "records"))
    parser.add_argument("--count", type=int, default=50,
                        help="how many random cases")
    parser.add_argument("--size", type=size, action="append", default=[],
                        metavar="B=1", help="B, T, I or H of random cases; a "
                        "size of the set records, see tf1/records.py")
    given = parser.parse_args()
    if given.set == "records":
        records.write_set(given)
    else:
        # TensorFlow refuses some of what may be drawn at random.
        write_all(given, all_cases(given),
                  {"tf_version": tensorflow.__version__},
                  Exception if given.set == "random" else ())
