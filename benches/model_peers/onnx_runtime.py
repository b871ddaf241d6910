"""A model of ONNX Runtime for MLServer, which has no runtime of its own for ONNX.

Owns: one session with one thread. Must not: do anything that the peer's own runtimes do not.
"""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    """Its `uri` is the file."""

    async def load(self) -> bool:
        """Opens the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        uri = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(uri, options, ["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One run."""
        given = {self._name: NumpyCodec.decode_input(payload.inputs[0])}
        answers = self._session.run(None, given)
        outputs = [
            NumpyCodec.encode_output(each.name, answer)
            for each, answer in zip(self._session.get_outputs(), answers, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
