"""Finds the passages that mean what is asked, by the vectors of a model behind the node's gateway.

    vedette token --subject me --header | python search.py "Where can I find fuses?"

asks the node of this machine; another one is said by --url and --ca.

Prints the nearest passages with the cosine of their angle to the question (1: the same). The token comes as a header on
standard input and goes nowhere else; texts and vectors go to this node and nowhere else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

ASKED = json.dumps(
    {"outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]}
).encode()
JSON_LENGTH = "Inference-Header-Content-Length"


class Node:
    """The model of a node, asked with texts over one connection."""

    def __init__(self, url: str, ca: str, authorization: str) -> None:
        place = urlsplit(url)
        context = ssl.create_default_context(cafile=ca)
        self._connection = http.client.HTTPSConnection(place.netloc, context=context, timeout=120)
        self._fields = {
            "authorization": authorization,
            "content-type": "text/plain",
            JSON_LENGTH: str(len(ASKED)),
        }

    def vector(self, text: str) -> np.ndarray:
        """FP32 [384], of length 1. Exits with what the node said when that is no answer."""
        body = ASKED + text.encode()
        self._connection.request("POST", "/v2/models/minilm/infer", body, self._fields)
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.status != 200:
            sys.exit(f"minilm: {answer.status} {found.decode(errors='replace')}")
        return np.frombuffer(found[int(answer.headers[JSON_LENGTH]) :], "<f4")


def nearest(node: Node, passages: list[str], question: str, top: int) -> list[tuple[float, str]]:
    """So many passages, nearest first."""
    vectors = np.stack([node.vector(each) for each in passages])
    cosines = vectors @ node.vector(question)
    return [(float(cosines[each]), passages[each]) for each in np.argsort(-cosines)[:top]]


def place(url: str | None, ca: str | None) -> tuple[str, str]:
    """Where to ask, and the CA's certificate: as given, else those of this machine's node (VEDETTE_HOME)."""
    if url and ca:
        return url, ca
    # The token comes on standard input, which is nobody else's to read.
    told = subprocess.run(
        ["vedette", "status", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if told.returncode:
        sys.exit("no node here: start one (vedette up), or give --url and --ca")
    node = json.loads(told.stdout)
    return url or node["listeners"][0]["url"], ca or f"{node['home']}/control/ca.crt"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="Finds passages by what they mean.")
    parser.add_argument("question")
    parser.add_argument("--url", help="where to ask; default: the node of this machine")
    parser.add_argument("--ca", help="the node's CA certificate; default: that of this machine's")
    parser.add_argument("--passages", type=Path, default=Path(__file__).with_name("passages.txt"))
    parser.add_argument("--top", type=int, default=3)
    given = parser.parse_args()
    name, _, authorization = sys.stdin.readline().strip().partition(": ")
    if name.lower() != "authorization":
        parser.error(
            "the token is wanted on standard input: vedette token --subject me --header | …"
        )
    passages = [each for each in given.passages.read_text("utf-8").splitlines() if each]
    node = Node(*place(given.url, given.ca), authorization)
    for cosine, passage in nearest(node, passages, given.question, given.top):
        print(f"{cosine:.2f}\t{passage}")


if __name__ == "__main__":
    main()
