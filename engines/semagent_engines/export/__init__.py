"""From a checkpoint to an artefact: ONNX graphs, manifest, golden tensors, compiled plans."""
