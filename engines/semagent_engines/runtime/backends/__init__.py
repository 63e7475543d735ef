"""Inference runtimes. Each turns an artefact into an engine and imports its library itself."""
