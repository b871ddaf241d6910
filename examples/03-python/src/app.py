"""hello-python: greets the caller, whose identity the edge has proved before this runs."""

import os

from componentize_py_types import Ok
from greeting import compose
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

SUBJECT = "x-vedette-subject"  # set by the edge from a verified token; no client can set it
CHUNK = 4096  # one call takes at most this many bytes (wasi:io/streams)


class IncomingHandler(exports.IncomingHandler):
    """The `wasi:http/incoming-handler` of this component: a fresh one for each request."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        """Answers one request."""
        subject = subject_of(request)
        print("greeting", subject or "somebody without a token", flush=True)
        text = compose(os.environ.get("GREETING"), subject)
        respond(response_out, text.encode())


def subject_of(request: IncomingRequest) -> str | None:
    """Who is calling, when a token has proved it."""
    values = request.headers().get(SUBJECT)
    return values[0].decode() if values else None


def respond(response_out: ResponseOutparam, body: bytes) -> None:
    """Sends a text answer with status 200."""
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain; charset=utf-8")]))
    outgoing = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with outgoing.write() as stream:
        for start in range(0, len(body), CHUNK):
            stream.blocking_write_and_flush(body[start : start + CHUNK])
    OutgoingBody.finish(outgoing, None)
