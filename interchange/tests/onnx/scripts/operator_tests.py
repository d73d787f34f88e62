"""Writes ONNX's own node tests of the operators that are supported as an archive, without those of
types that tensors do not have. Large tests are left out if the operator has a smaller one.

    python operator_tests.py OPERATORS.rs ARCHIVE        (needs `onnx`)

The names of the operators are those in `interchange/src/onnx/operators/mod.rs`.
"""

import re
import sys
import tempfile
import zipfile
from pathlib import Path

from onnx.backend.test.case.node import collect_testcases

from layout import write_test

LARGEST = 1500
# f32, u8, i32, i64, bool, f16, f64, bf16
TYPES = {1, 2, 6, 7, 9, 10, 11, 16}


def main(table, archive):
    supported = set(re.findall(r'^    "(\w+)" \[', Path(table).read_text(), re.M))
    covered = set()
    count = 0
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(
        archive, "w", zipfile.ZIP_DEFLATED
    ) as out:
        tests = []
        for case in collect_testcases(None):
            graph = case.model.graph
            operators = {node.op_type for node in graph.node}
            types = {v.type.tensor_type.elem_type for v in [*graph.input, *graph.output]}
            if "_expanded" in case.name or not (operators <= supported and types <= TYPES):
                continue
            test = Path(folder) / case.name
            write_test(test, case.model, case.data_sets)
            files = sorted(file for file in test.rglob("*") if file.is_file())
            size = sum(file.stat().st_size for file in files)
            tests.append((size, case.name, operators, files))
        for size, _, operators, files in sorted(tests, key=lambda test: test[:2]):
            if size > LARGEST and operators <= covered:
                continue
            covered |= operators
            for file in files:
                # A fixed time, so that the archive depends on the tests alone.
                entry = zipfile.ZipInfo(str(file.relative_to(folder)), (2020, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                out.writestr(entry, file.read_bytes())
            count += 1
    print(f"{count} tests")


if __name__ == "__main__":
    main(*sys.argv[1:])
