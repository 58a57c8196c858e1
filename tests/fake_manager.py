"""NNI's manager as a trial hears it, played by a local server."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class Manager:
    """What NNI's manager says to a trial: one set of parameters handed over, another or the same recorded."""

    def __init__(self, handed: dict[str, Any], recorded: dict[str, Any] | None) -> None:
        self.handed, self.recorded = handed, recorded
        self.metrics: list[dict[str, Any]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = manager.answer(self.path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def do_PUT(self) -> None:
                command = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if command["type"] == "metric":
                    manager.metrics.append(json.loads(command["metric"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, path: str) -> Any:
        if path == "/prefix/env/local-env/TRIAL":
            return {"type": "parameter", "parameter": json.dumps(self.handed)}
        if path == "/prefix/api/v1/nni/experiment":
            return {"params": {"trialConcurrency": 2, "trainingService": {"platform": "local"}}}
        if path == "/prefix/api/v1/nni/trial-jobs/TRIAL" and self.recorded:
            return {"hyperParameters": [json.dumps(self.recorded)]}
        return None

    def environment(self, output: Path) -> dict[str, str]:
        return {
            "NNI_PLATFORM": "local",
            "NNI_EXP_ID": "EXPERIMENT",
            "NNI_TRIAL_JOB_ID": "TRIAL",
            "NNI_TRIAL_SEQ_ID": "7",
            "NNI_SYS_DIR": str(output),
            "NNI_OUTPUT_DIR": str(output),
            "NNI_TRIAL_COMMAND_CHANNEL": f"http://127.0.0.1:{self.server.server_port}/prefix/env/local-env/TRIAL",
        }

    def values(self, kind: str) -> list[dict[str, float]]:
        return [json.loads(metric["value"]) for metric in self.metrics if metric["type"] == kind]


def parameters(parameter_id: int, **values: float) -> dict[str, Any]:
    return {"parameter_id": parameter_id, "parameter_source": "algorithm", "parameters": values}
