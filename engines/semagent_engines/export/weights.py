"""The weights inside an artefact's graphs, so that training can go on from what was shipped.

An exporter names most weights as the model does, but stores the matrices of linear layers
transposed and without a name, and equal weights once. Naming them all makes the graphs their own
checkpoint, and saves an artefact from carrying every weight twice.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from semagent.errors import ConfigError
from semagent_engines.model.config import ModelConfig
from semagent_engines.model.network import SemModel, build
from semagent_engines.runtime.artefact import GRAPHS, MANIFEST, Artefact

_TRANSPOSED = "/transposed"
_SAME = "same as another: "


def name_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Name every initialiser of a graph that holds one of the weights.

    Args:
        path: ``.onnx`` file, rewritten.
        weights: state dict of the exported `SemModel`.
    """
    model = onnx.load(path)
    matrices = {name: value.numpy().T for name, value in weights.items() if value.ndim == 2}
    renamed = {}
    for initialiser in model.graph.initializer:
        # The exporter's names begin with the graph's own attribute for the model or its head.
        inner = initialiser.name.partition(".")[2]
        known = next((name for name in (inner, f"pair_head.{inner}") if name in weights), None)
        if known is not None:
            renamed[initialiser.name] = known
        elif len(initialiser.dims) == 2:
            held = numpy_helper.to_array(initialiser)
            twins = [name for name, value in matrices.items() if np.array_equal(value, held)]
            if twins:
                renamed[initialiser.name] = twins[0] + _TRANSPOSED
                del matrices[twins[0]]
    for initialiser in model.graph.initializer:
        initialiser.name = renamed.get(initialiser.name, initialiser.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    held_here = {name.removesuffix(_TRANSPOSED) for name in renamed.values()}
    for name in weights.keys() - held_here:
        twin = next(
            (known for known in held_here if torch.equal(weights[known], weights[name])), ""
        )
        if twin:
            model.metadata_props.add(key=_SAME + name, value=twin)
    onnx.save(model, path)


def model_of_artefact(artefact: Artefact) -> SemModel:
    """The model an artefact was exported from, in evaluation mode.

    Raises:
        ConfigError: a weight is in none of the graphs, or there with another shape.
    """
    model = build(ModelConfig.from_dict(artefact.manifest.model))
    wanted = model.state_dict()
    found: dict[str, Tensor] = {}
    for graph in GRAPHS:
        held = onnx.load(artefact.graph(graph))
        for initialiser in held.graph.initializer:
            name = initialiser.name.removesuffix(_TRANSPOSED)
            if name in wanted:
                value = numpy_helper.to_array(initialiser)
                value = value.T if name != initialiser.name else value
                found[name] = torch.from_numpy(np.array(value))
        for note in held.metadata_props:
            if note.key.startswith(_SAME) and note.value in found:
                found.setdefault(note.key.removeprefix(_SAME), found[note.value])
    missing = sorted(
        name for name in wanted if name not in found or found[name].shape != wanted[name].shape
    )
    if missing:
        raise ConfigError(
            f"{artefact.folder / MANIFEST}: the graphs are of another `model`: they lack "
            f"{len(missing)} of its weights, such as {missing[0]} {tuple(wanted[missing[0]].shape)}"
        )
    model.load_state_dict(found)
    return model.eval()
