"""Live focus, stigmation and restoration beside a scanning electron microscope."""

__version__ = "0.1.0"
