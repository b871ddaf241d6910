"""Puts the two models of the wheel rapidocr-onnxruntime (Apache-2.0) beside this file, and what recognition can write.

pip install --no-deps rapidocr-onnxruntime==1.4.4
python examples/06-ocr/models.py [FOLDER]
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import onnx

NAMES = {
    "ch_PP-OCRv4_det_infer.onnx": "detection.onnx",
    "ch_PP-OCRv4_rec_infer.onnx": "recognition.onnx",
}


def main(folder: Path) -> None:
    """Copies them into `folder`."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or not found.submodule_search_locations:
        sys.exit(
            "rapidocr-onnxruntime is not installed: pip install --no-deps rapidocr-onnxruntime==1.4.4"
        )
    models = Path(found.submodule_search_locations[0]) / "models"
    for name, ours in NAMES.items():
        shutil.copyfile(models / name, folder / ours)
    said = onnx.load(folder / "recognition.onnx", load_external_data=False).metadata_props
    (characters,) = (each.value for each in said if each.key == "character")
    (folder / "characters.txt").write_text(characters, "utf-8")
    print(f"{', '.join(NAMES.values())} and characters.txt are in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
