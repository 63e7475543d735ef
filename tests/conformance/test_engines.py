"""Every engine that ships passes the suite third parties are given."""

from semagent.testing import EngineConformance


class TestSharpness(EngineConformance):
    engine = "sharpness"


class TestOnnxRuntime(EngineConformance):
    engine = "onnxruntime"


class TestOpenVino(EngineConformance):
    engine = "openvino"
