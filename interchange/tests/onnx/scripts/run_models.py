"""Checks every model of a folder with `onnx.checker`, and runs it with ONNX Runtime.

NAME.onnx has the inputs NAME.INPUT.in (f32) and the sizes of time and batch in NAME.sizes. Writes
its outputs to NAME.K.out.

    python run_models.py FOLDER        (needs `onnx` and `onnxruntime`)
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main(folder):
    for path in sorted(folder.glob("*.onnx")):
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        time, batch = map(int, path.with_suffix(".sizes").read_text().split())
        sizes = {"time": time, "batch": batch}
        inputs = {}
        for port in session.get_inputs():
            dims = [sizes.get(d, d) for d in port.shape]
            data = np.fromfile(path.with_suffix(f".{port.name}.in"), np.float32)
            inputs[port.name] = data.reshape(dims)
        for k, output in enumerate(session.run(None, inputs)):
            output.astype("<f4").tofile(path.with_suffix(f".{k}.out"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
