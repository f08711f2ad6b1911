"""From trained networks to ONNX files: export, fusion, narrower number formats.

Normalisation and clipping are part of the network, hence of every file; the input is (B, C, T) in
microvolts at the dataset's rate.
"""

import ast
import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from hbn.deploy.runtime import INPUT, session
from hbn.files import atomic

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's metadata key for the modules from which a node comes
LARGE = 1024  # numbers in a constant from which storing it as float16 saves space


class _Cast(nn.Module):
    """A network that computes in another number format behind float32 inputs and outputs."""

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = copy.deepcopy(network).to(dtype), dtype

    def forward(self, x_uv: Tensor) -> Tensor:
        return self.network(x_uv.to(self.dtype)).float()


def export(network: nn.Module, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> onnx.ModelProto:
    """ONNX graph of a network on (B, *shape), B free, computing in `dtype`."""
    with _quiet():
        program = torch.onnx.export(
            network if dtype == torch.float32 else _Cast(network, dtype).eval(),
            (torch.zeros(2, *shape),),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=["output"],
            dynamic_shapes=({0: "batch"},),
        )
    assert program is not None  # torch.onnx.export returns a program with dynamo=True
    return program.model_proto


def fuse(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after ONNX Runtime folded constants and fused operators, as far as this does not depend on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fused.onnx"
        level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        session(
            graph.SerializeToString(), threads=1, graph_optimization_level=level, optimized_model_filepath=str(path)
        )
        return onnx.load(path)


def half_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with large float32 constants stored as float16; loading the file makes them float32 again."""
    graph = copy.deepcopy(graph)
    casts = []
    for constant in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.size >= LARGE:
            name = constant.name
            casts.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=1))
            constant.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def int8(
    graph: onnx.ModelProto, calibration_uv: np.ndarray | None = None, percentile: float = 99.99
) -> onnx.ModelProto:
    """Matrix products of the encoder in INT8, weights per output channel.

    With calibration windows (N, C, T), activations have fixed ranges that hold `percentile` percent of
    the values (static). Without windows, the ranges are measured at each call (dynamic). The spectrum of
    the factors' network stays in floating point, because its bands differ by orders of magnitude. The
    small read-outs and the repair of bad channels stay in floating point, too. Remaining float32 constants
    are stored as float16.
    """
    inside = {node.name for node in graph.graph.node if node.op_type == "MatMul" and "encoder" in _scopes(node)}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, prepared, path = (Path(folder) / name for name in ("source.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(graph, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        folded = onnx.load(prepared)
        constants = {constant.name for constant in folded.graph.initializer}
        layers = {node.name for node in folded.graph.node if node.input[1:2] and node.input[1] in constants}  # x @ W
        products = sorted(layers & inside)
        settings: dict[str, Any] = {
            **{"op_types_to_quantize": ["MatMul"], "nodes_to_quantize": products},
            **{"per_channel": True, "weight_type": quantization.QuantType.QInt8},
        }
        if calibration_uv is None:
            quantization.quantize_dynamic(folded, path, **settings)
        else:
            # The products' outputs stay float32, which is faster and more exact than quantising them again.
            options = {"CalibPercentile": percentile, "OpTypesToExcludeOutputQuantization": ["MatMul"]}
            quantization.quantize_static(
                folded,
                path,
                _Windows(calibration_uv),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                calibrate_method=quantization.CalibrationMethod.Percentile,
                extra_options=options,
                **settings,
            )
        return half_weights(onnx.load(path))


def write(graph: onnx.ModelProto, path: Path | str, **facts: object) -> None:
    """Write a graph with `facts` as metadata, and nothing that differs from run to run.

    The exporter's metadata holds stack traces with the paths of this machine.
    """
    graph = copy.deepcopy(graph)
    body = graph.graph
    for part in (graph, body, *body.node, *body.initializer, *body.value_info, *body.input, *body.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.helper.set_model_props(graph, {name: str(value) for name, value in sorted(facts.items())})
    with atomic(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))


class _Windows(quantization.CalibrationDataReader):
    """Calibration windows (N, C, T) in batches."""

    def __init__(self, x_uv: np.ndarray):
        self._batches: Iterator = iter(np.array_split(x_uv, -(-len(x_uv) // 32)))

    def get_next(self) -> dict | None:  # ty: ignore[incompatible-method-override]  # None ends it
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silence the exporter and the quantiser, which log every node and print; errors still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _scopes(node: onnx.NodeProto) -> list[str]:
    text = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return ast.literal_eval(text)
