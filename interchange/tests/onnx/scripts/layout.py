"""ONNX's layout of tests: NAME/model.onnx, NAME/test_data_set_0/{input,output}_K.pb."""

import numpy as np
from onnx import TensorProto, numpy_helper


def write_test(folder, model, data_sets):
    """`data_sets` are pairs of the lists of inputs and outputs, arrays each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for index, (inputs, outputs) in enumerate(data_sets):
        data = folder / f"test_data_set_{index}"
        data.mkdir(exist_ok=True)
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for k, array in enumerate(arrays):
                if not isinstance(array, TensorProto):
                    array = numpy_helper.from_array(np.asarray(array), f"{kind}_{k}")
                (data / f"{kind}_{k}.pb").write_bytes(array.SerializeToString())
