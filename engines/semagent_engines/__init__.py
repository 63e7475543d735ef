"""Inference engines for semagent. Each is loaded by its entry point; none imports another."""
