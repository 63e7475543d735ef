"""Inference engines for semagent. Each is loaded by its entry point; none imports another.

Runtimes tell their makers what they are used for, unless they are kept from it before they are
loaded. What runs beside a microscope is nobody else's business.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime: of models that are loaded
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO: of imports
