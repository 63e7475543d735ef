"""Half precision for GPUs: a copy of a graph in which only what can bear it is 16 bit wide.

Strongly typed networks, the only kind TensorRT for RTX builds, compute in the types the graph
states, so the types have to be in the graph.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FIRST = ("restorer.stem.weight", "encoder.embed_patch.weight", "encoder.embed_spectrum.weight")
_LAST = ("restorer.out.weight",)
_GATE = (".mlp.gate.weight",)
_NORMS, _WAVES = {"LayerNormalization"}, {"Cos", "Sin"}
_FLOAT_ONLY = {("Resize", 1), ("Resize", 2)}
_SINGLE, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def in_half_precision(graph: Path) -> bytes:
    """``restore.onnx`` with encoder and restoration in half precision.

    Single precision stay: inputs and outputs; normalisation and spectra, whose sums overflow 65504
    in 16-bit frames; the way back to grey values; layer norms; the angles of the positions, which
    need more than three digits; and the gates, which would choose another expert where two are
    nearly equal.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(graph), data_prop=True)
    halved = _halved_nodes(model.graph)
    types = _element_types(model.graph)
    initialisers = {item.name: item for item in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    casts: dict[tuple[str, int], str] = {}

    def cast(name: str, to: int) -> str:
        key = (name, to)
        if key not in casts:
            casts[key] = f"{name}/{'half' if to == _HALF else 'single'}"
            if name in initialisers:
                value = numpy_helper.to_array(initialisers[name]).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(value, casts[key]))
            else:
                nodes.append(helper.make_node("Cast", [name], [casts[key]], casts[key], to=to))
        return casts[key]

    for node in model.graph.node:
        half = node.name in halved
        for index, name in enumerate(node.input):
            if types.get(name) != _SINGLE or (node.op_type, index) in _FLOAT_ONLY:
                continue
            came_half = name in makers and makers[name].name in halved
            if half and not came_half:
                node.input[index] = cast(name, _HALF)
            elif came_half and not half:
                node.input[index] = cast(name, _SINGLE)
        if half:
            _retype(node)
        nodes.append(node)
    del model.graph.node[:]
    del model.graph.value_info[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _halved_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that compute in half precision."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def holding(weights: tuple[str, ...]) -> list[onnx.NodeProto]:
        return [node for node in graph.node if any(w in i for i in node.input for w in weights)]

    def before(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        return (makers[name] for name in node.input if name in makers)

    def after(node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        return (user for name in node.output for user in users.get(name, []))

    ends = {value.name for value in graph.output}
    gates = holding(_GATE)
    single = set(_reached(holding(_FIRST), before)) | set(_reached(holding(_LAST), after))
    single |= {makers[name].name for name in ends}
    single |= {node.name for gate in gates for node in (gate, *after(gate))}
    waves = [node for node in graph.node if node.op_type in _WAVES]
    single |= set(_reached(waves, before))
    single |= {node.name for node in graph.node if node.op_type in _NORMS | _WAVES}
    types = _element_types(graph)
    produces = {
        node.name for node in graph.node if any(types.get(o) == _SINGLE for o in node.output)
    }
    return produces - single


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    known = {item.name: item.data_type for item in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        known[value.name] = value.type.tensor_type.elem_type
    return known


def _retype(node: onnx.NodeProto) -> None:
    """Make a node that states single precision state half."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == _SINGLE:
            attribute.i = _HALF
        if attribute.HasField("t") and attribute.t.data_type == _SINGLE:
            value = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))


def _reached(
    start: list[onnx.NodeProto], step: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]
) -> Iterator[str]:
    """Names of the nodes that can be reached from some, which are not counted themselves."""
    found: set[str] = set()
    edge = list(start)
    while edge:
        for node in step(edge.pop()):
            if node.name not in found:
                found.add(node.name)
                edge.append(node)
                yield node.name
