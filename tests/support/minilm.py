"""all-MiniLM-L6-v2 for tests: the builder of examples/08-search, and what its tokenizer makes of texts.

Owns: loading that builder. Must not: build another one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

_FILE = Path(__file__).parents[2] / "examples" / "08-search" / "model.py"
_spec = importlib.util.spec_from_file_location("vedette_example_minilm", _FILE)
assert _spec is not None
assert _spec.loader is not None
_builder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_builder)

folder = _builder.folder
model = _builder.model
LENGTH = 32


def tokens(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What the model takes for these texts, each cut or filled up to `LENGTH` tokens."""
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(list(texts))
    ids = np.array([each.ids for each in found], np.int64)
    mask = np.array([each.attention_mask for each in found], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
