"""
8-bit weights for an exported model.

What is done here was chosen by what it changes in mAP@10 on the soundscapes' validation set, one tower at a time, with
a model in the midst of its training (hidden sizes 16 to 128, MiniLM; 0.5366 on validation, 0.6015 on test). Time is the
processor's, as a part of float32's in ONNX Runtime.

| tower | what is 8-bit | validation | test | time |
| --- | --- | --- | --- | --- |
| text | matrix products, a scale for each channel | +0.0017 | +0.0033 | 0.54 |
| text | **and embedding tables**: the file is 25 instead of 61 MB | +0.0012 | +0.0002 | 0.51 |
| text | matrix products, one scale for each matrix | -0.0069 | -0.0053 | 0.58 |
| audio | **convolutions but for the first, and head, statically** | +0.0010 | 0.0000 | 0.66 |
| audio | all convolutions and head, statically | -0.0063 | -0.0011 | 0.78 |
| audio | all convolutions and head, dynamically | -0.0008 | -0.0021 | 5.1 |

The first convolution sees decibels, for which 8 bits are too coarse; dynamic convolutions are slow. At the end of the
training (0.6740 on validation, 0.6916 on test) the text tower costs 0.0035 and 0.0004, the audio tower gains 0.0028 and
costs 0.0018, and both together gain 0.0017 and cost 0.0067 (scripts/benchmark.py onnx).
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import RetrievalError
from .model_inputs import ModelInputs
from .onnx_embedding import as_declared

CALIBRATION_RECORDINGS = 64
CALIBRATION_SECONDS = 30.0  # of each


def calibration_waveforms(
    recordings: str | os.PathLike | Sequence[np.ndarray], sampling_rate: int
) -> Sequence[np.ndarray]:
    """
    The waveforms themselves, or the beginnings of 64 recordings spread evenly over a folder.

    Args:
        recordings: waveforms [samples], or the folder.
        sampling_rate: of the result, in Hz.

    Raises:
        RetrievalError: there is no such folder, or no recording below it.
        AudioError: a recording cannot be used.
    """
    if not isinstance(recordings, str | os.PathLike):
        return recordings
    from .scanning import scan
    from .windows import read_windows

    files = sorted(scan([recordings]).files)
    if not files:
        raise RetrievalError(f"{recordings}: found no recording, expected some to calibrate the 8-bit audio tower with")
    chosen = np.linspace(0, len(files) - 1, min(len(files), CALIBRATION_RECORDINGS)).round().astype(int)
    return [next(read_windows(files[i], sampling_rate, CALIBRATION_SECONDS, 0.0))[2] for i in chosen]


def quantise_text(path: Path) -> None:
    """Rewrites a text tower with 8-bit weights in its matrix products and embedding tables.

    What goes into a matrix product is rounded to 8 bits on the fly, at a scale of its own.
    """
    from onnxruntime.quantization import quantize_dynamic

    source = _prepared(path)
    quantize_dynamic(source, path, op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True)
    source.unlink()


def quantise_audio(path: Path, processor, waveforms: Sequence[np.ndarray]) -> None:
    """Rewrites an audio tower with 8-bit convolutions, but for the first, and an 8-bit head.

    Args:
        path: the file.
        processor: of the model.
        waveforms: [samples] each; the ranges of what goes into each layer are taken from them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    source = _prepared(path)
    nodes = onnx.load(source, load_external_data=False).graph.node
    first = next(node.name for node in nodes if node.op_type == "Conv")
    quantize_static(
        source,
        path,
        _calibration_reader(ModelInputs(processor, batch_size=1), waveforms),
        op_types_to_quantize=["Conv", "Gemm"],
        nodes_to_exclude=[first],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    source.unlink()


def _prepared(path: Path) -> Path:
    """A copy with the shapes and constants that the quantiser asks for."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f"{path.stem}.prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    return prepared


def _calibration_reader(inputs: ModelInputs, waveforms: Iterable[np.ndarray]):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = inputs.audio(waveforms)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return batch and {name: as_declared(array) for name, array in batch.arguments.items()}

    return Reader()
