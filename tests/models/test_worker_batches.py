"""Whatever runs together, on the real runtime: a batched answer is that of the runtime for the request alone."""

from __future__ import annotations

import concurrent.futures
import json
import threading
from pathlib import Path

import numpy as np
import onnxruntime
from tests.models import onnx_files
from tests.models.workers import Worker, exchange, served, tensor, worker

INSIDE, CALLERS = 512, 8
TOGETHER = 200
"""Answers of runs of several that have to have been looked at."""
MOST = 20_000
"""Requests after which a model that gets cheaper by the row has put many together."""


class Fuzz:
    """Callers who ask rows at random, each answer compared with what the runtime says of that request alone."""

    def __init__(self, started: Worker, file: bytes) -> None:
        self._worker = started
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._alone = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        self._lock = threading.Lock()
        self.asked = self.together = self.most = 0

    def ask(self, seed: int) -> None:
        """Asks until enough have run together: one to four rows, in JSON or in bytes, as one of two tenants."""
        random, connection = np.random.default_rng(seed), self._worker.connect()
        while self.together < TOGETHER and self.asked < MOST:
            rows = random.standard_normal((random.integers(1, 5), INSIDE), np.float32)
            tenant, as_bytes = f"{seed % 2:02x}", bool(random.integers(2))
            got, batch = self._answer(connection, rows, tenant, as_bytes)
            wanted = self._alone.run(["y"], {"x": rows})[0]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
            with self._lock:
                self.asked += 1
                self.together += batch > 1
                self.most = max(self.most, batch)

    def _answer(
        self, connection: object, rows: np.ndarray, tenant: str, as_bytes: bool
    ) -> tuple[np.ndarray, int]:
        given = {"name": "x", "datatype": "FP32", "shape": list(rows.shape)}
        headers = {"x-vedette-tenant": tenant}
        if as_bytes:
            given["parameters"] = {"binary_data_size": rows.nbytes}
        else:
            given["data"] = rows.tolist()
        asked = {"inputs": [given], "parameters": {"binary_data_output": as_bytes}}
        body = json.dumps(asked).encode()
        if as_bytes:
            headers["inference-header-content-length"] = str(len(body))
            body += rows.tobytes()
        answer = exchange(connection, "POST", f"{self._worker.base}/infer", body, headers)  # type: ignore[arg-type]
        assert answer.status == 200, answer.body
        [output] = answer.json["outputs"]
        assert output["shape"] == list(rows.shape)
        found = np.frombuffer(answer.binary, "<f4") if as_bytes else np.array(output["data"], "<f4")
        return found.reshape(rows.shape), int(answer.headers["x-vedette-batch"])


def test_a_batched_answer_is_the_runtimes_for_the_request_alone(tmp_path: Path) -> None:
    file = onnx_files.mlp(INSIDE, 8)
    ports = [tensor("x", [0, INSIDE])], [tensor("y", [0, INSIDE])]
    model = served(file, *ports, limits={"batch": 8, "queue": 1000})
    with (
        worker(tmp_path, file, model) as started,
        concurrent.futures.ThreadPoolExecutor(CALLERS) as callers,
    ):
        fuzz = Fuzz(started, file)
        for done in [callers.submit(fuzz.ask, seed) for seed in range(CALLERS)]:
            done.result()
    assert fuzz.together >= TOGETHER, f"{fuzz.together} of {fuzz.asked} ran with others"
    assert 1 < fuzz.most <= 8
