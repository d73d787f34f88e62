"""ONNX Runtime's dynamic quantization of LSTMs, for the scripts that compare with it."""

import tempfile

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize_lstms(model):
    """The model with the weights of its LSTMs as 8-bit integers, with a scale for each column."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/quantized.onnx"
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=["LSTM"],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(file)
