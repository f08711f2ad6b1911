"""The variants of a network: making each ONNX file, and testing whether this CPU can run it."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from hbn.data.dataset import Dataset
from hbn.deploy import export, runtime
from hbn.files import HbnError

Maker = Callable[[], onnx.ModelProto]


def makers(network: nn.Module, shape: tuple[int, int], dataset: Dataset, p) -> dict[str, Maker]:
    """Functions that make the variants of a network for windows of `shape` (C, T); `p` is the section quantize."""

    @functools.cache
    def fp32() -> onnx.ModelProto:
        return export.export(network, shape)

    return {
        "fp32": fp32,
        "fused": lambda: export.fuse(fp32()),
        "fp16_weights": lambda: export.half_weights(export.fuse(fp32())),
        "fp16": lambda: export.export(network, shape, torch.float16),
        "bf16": lambda: export.export(network, shape, torch.bfloat16),
        "int8_dynamic": lambda: export.int8(fp32()),
        "int8_static": lambda: export.int8(fp32(), calibration_uv(dataset, p), p.calibration_percentile),
    }


def make(maker: Maker, path: Path, facts: dict[str, object], threads: int) -> ort.InferenceSession | str:
    """Write one variant with `facts` as metadata and run it once; its session, or the reason why it cannot run."""
    try:
        export.write(maker(), path, **facts)
        session = runtime.session(path, threads)
        entry = session.get_inputs()[0]
        session.run(None, {entry.name: np.zeros((1, *entry.shape[1:]), np.float32)})
    except Exception as error:  # the errors of exporter, quantiser and runtime have no common class
        return f"cannot run here: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}"
    return session


def calibration_uv(dataset: Dataset, p) -> np.ndarray:
    """Windows (N, C, T) of training participants, drawn without replacement."""
    windows = dataset.split_windows("train")
    if not len(windows):
        raise HbnError("no window of a training participant for calibration")
    drawn = np.random.default_rng(p.seed).permutation(len(windows))[: p.n_calibration_windows]
    return dataset.batch_uv(windows[np.sort(drawn)]).numpy()
