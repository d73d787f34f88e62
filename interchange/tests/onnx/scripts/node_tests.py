"""Writes ONNX's own node tests of RNN, GRU and LSTM in ONNX's layout.

    python node_tests.py FOLDER        (needs `onnx`)
"""

import sys
from pathlib import Path

from onnx.backend.test.case.node import collect_testcases

from layout import write_test

RECURRENT = {"RNN", "GRU", "LSTM"}


def main(folder):
    count = 0
    for case in collect_testcases(None):
        if {node.op_type for node in case.model.graph.node} & RECURRENT:
            write_test(folder / case.name, case.model, case.data_sets)
            count += 1
    print(f"{count} tests")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
