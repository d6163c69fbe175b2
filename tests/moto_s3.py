"""An S3 on this machine: moto's server in a thread of this process, which can be told to fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

BUCKET = "holism-test"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3:
    """A server with one bucket. `fail` says with which status a request fails; None lets it through."""

    bucket = BUCKET

    def __enter__(self) -> S3:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self.fail: Callable[[Any], int | None] = lambda _: None
        self.count = 0
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}"}
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        forget_file_systems()
        import boto3

        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        forget_file_systems()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.count += 1
        status = self.fail(environ)
        if status is None:
            return self._app(environ, start_response)
        start_response(f"{status} Failed", [("Content-Length", "0")])
        return [b""]


def forget_file_systems() -> None:
    """Clients know the address they were made with."""
    import s3fs

    from pipeline import storage

    storage._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
