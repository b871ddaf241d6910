"""Reads a document: where text is and what it says, by two models behind the node's gateway.

    vedette token --subject me --header | python read.py page.png

asks the node of this machine; another one is said by --url and --ca.

Prints a line of text a line, with its score and its place: x y width height, in pixels. The token comes as a header on
standard input and goes nowhere else.

What comes before and after the models is that of PP-OCR (https://github.com/PaddlePaddle/PaddleOCR): detection gives a
map of how likely each pixel is text; a region of it, grown by as much as training shrank it, is cut out and read in one
go; recognition gives a character or nothing (CTC) for every eighth column. Lines are taken to be level.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

SIDE = 32  # the detector's strides: a side is a multiple of it
LONGEST = 960
TEXT, REGION = 0.3, 0.5  # how likely a pixel, and a region on the whole, has to be
GROWN = 1.6  # DB: area * GROWN / circumference is how far a region is grown
HEIGHT = 48
JSON_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Line:
    """A line of text: what it says, how sure that is (0 to 1), and where it is."""

    text: str
    score: float
    box: tuple[int, int, int, int]


class Node:
    """The models of a node, asked by the Open Inference Protocol with binary tensors over one connection."""

    def __init__(self, url: str, ca: str, authorization: str) -> None:
        place = urlsplit(url)
        context = ssl.create_default_context(cafile=ca)
        self._connection = http.client.HTTPSConnection(place.netloc, context=context, timeout=120)
        self._authorization = authorization

    def run(self, model: str, values: np.ndarray) -> np.ndarray:
        """The only output for the only input, both FP32. Exits with what the node said when that is no answer."""
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        tensor = {"name": "x", "datatype": "FP32", "shape": values.shape}
        head = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(head).encode()
        fields = {
            "authorization": self._authorization,
            "content-type": "application/octet-stream",
            JSON_LENGTH: str(len(text)),
        }
        self._connection.request("POST", f"/v2/models/{model}/infer", text + raw, fields)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{model}: {answer.status} {body.decode(errors='replace')}")
        end = int(answer.headers[JSON_LENGTH])
        [output] = json.loads(body[:end])["outputs"]
        return np.frombuffer(body[end:], "<f4").reshape(output["shape"])


def find(node: Node, picture: Image.Image) -> list[tuple[int, int, int, int]]:
    """Where text is: left, top, right, bottom, from the top of the picture to its bottom."""
    scale = min(1.0, LONGEST / max(picture.size))
    width, height = (max(SIDE, round(side * scale / SIDE) * SIDE) for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    likely = node.run("text-detection", ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])[0, 0]
    across, down = picture.width / width, picture.height / height
    found = []
    for left, top, right, bottom in regions(likely > TEXT):
        wide, high = right - left, bottom - top
        if min(wide, high) < 3 or likely[top:bottom, left:right].mean() < REGION:
            continue
        grown = wide * high * GROWN / (2 * (wide + high))
        box = (
            (left - grown) * across,
            (top - grown) * down,
            (right + grown) * across,
            (bottom + grown) * down,
        )
        edges = (picture.width, picture.height) * 2
        found.append(
            tuple(int(min(max(each, 0), edge)) for each, edge in zip(box, edges, strict=True))
        )
    return sorted(found, key=lambda it: (it[1], it[0]))


def regions(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes around what hangs together: runs of each row, joined with those of the row above that they touch."""
    parents: list[int] = []
    boxes: list[list[int]] = []

    def root(it: int) -> int:
        while parents[it] != it:
            parents[it] = parents[parents[it]]
            it = parents[it]
        return it

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for start, end in edges.reshape(-1, 2).tolist():
            own = len(parents)
            parents.append(own)
            boxes.append([start, y, end, y + 1])
            for first, last, other in above:
                if first < end and start < last:
                    parents[root(other)] = root(own)
            here.append((start, end, own))
        above = here
    whole: dict[int, list[int]] = {}
    for each, (left, top, right, bottom) in enumerate(boxes):
        box = whole.setdefault(root(each), [left, top, right, bottom])
        box[:] = min(box[0], left), min(box[1], top), max(box[2], right), max(box[3], bottom)
    return [(left, top, right, bottom) for left, top, right, bottom in whole.values()]


def recognise(node: Node, picture: Image.Image, characters: list[str]) -> tuple[str, float]:
    """What a picture of one line says, and the mean of its characters' scores."""
    width = max(HEIGHT, round(picture.width * HEIGHT / picture.height))
    pixels = np.asarray(picture.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    [steps] = node.run("text-recognition", ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])
    best, scores = steps.argmax(axis=1), steps.max(axis=1)
    # CTC: 0 is nothing, and the same twice in a row is one.
    is_new = (best != 0) & (best != np.concatenate(([0], best[:-1])))
    text = "".join(characters[each - 1] for each in best[is_new])
    return text.strip(), float(scores[is_new].mean()) if is_new.any() else 0.0


def read(node: Node, picture: Image.Image, characters: list[str]) -> list[Line]:
    """The lines of a picture."""
    lines = []
    for box in find(node, picture):
        text, score = recognise(node, picture.crop(box), characters)
        if text:
            lines.append(Line(text, score, (box[0], box[1], box[2] - box[0], box[3] - box[1])))
    return lines


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
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Reads a document by the models of a node.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--url", help="where to ask; default: the node of this machine")
    parser.add_argument("--ca", help="the node's CA certificate; default: that of this machine's")
    parser.add_argument("--characters", type=Path, default=here / "characters.txt")
    given = parser.parse_args()
    name, _, authorization = sys.stdin.readline().strip().partition(": ")
    if name.lower() != "authorization":
        parser.error(
            "the token is wanted on standard input: vedette token --subject me --header | …"
        )
    characters = [*given.characters.read_text("utf-8").split("\n"), " "]
    url, ca = place(given.url, given.ca)
    with Image.open(given.picture) as opened:
        picture = opened.convert("RGB")
    for line in read(Node(url, ca, authorization), picture, characters):
        print(f"{line.text}\t{line.score:.2f}\t{' '.join(map(str, line.box))}")


if __name__ == "__main__":
    main()
