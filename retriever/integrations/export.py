"""Export an encoder's dense or sparse view as a folder that sentence-transformers loads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.encoder.spec import parse_spec
from retriever.names import VIEWS
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.integrations.view_module import EncoderView

__all__ = ["SLICES", "encoder_folder", "export_view"]

SLICES = 768


def encoder_folder(spec: str) -> Path:
    """Return the folder of one of our encoders; raise UserError for a specification of another kind."""
    found = parse_spec(spec)
    if not found.own:
        raise UserError(
            f"{spec}: not an encoder of ours, so there is no view of it; give a folder, a hub name or default"
        )
    return found.folder()


def export_view(spec: str, view: str, output: str | Path, *, slices: int = SLICES) -> Path:
    """Write a view of an encoder as a SentenceTransformer ("dense", "folded") or SparseEncoder ("sparse") folder.

    slices: into how many numbers the terms of the "folded" view are put, behind the dense vector.

    It is loaded with `trust_remote_code=True`, because its module is one of this package, which has to be installed.

    Raises:
        UserError: an unknown view, no encoder of ours, or a folder that is there already.
    """
    output = Path(output)
    if view not in VIEWS:
        raise UserError(f"view {view!r} is unknown; choose one of {', '.join(VIEWS)}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists and is not an empty folder; choose another or remove it first")
    from sentence_transformers import SentenceTransformer, SparseEncoder

    from retriever.integrations.view_module import EncoderView

    module = EncoderView(encoder_folder(spec), view, slices=slices if view == "folded" else 0)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as name:
        part = Path(name) / "view"
        if view != "sparse":
            SentenceTransformer(modules=[module], similarity_fn_name="cosine").save_pretrained(str(part))
        else:
            SparseEncoder(modules=[module], similarity_fn_name="dot").save_pretrained(str(part))
        _require_package(part)
        (part / "README.md").write_text(_card(view, module), encoding="utf-8")
        part.replace(output)
    return output


def _require_package(folder: Path) -> None:
    """Let sentence-transformers say which package is missing, instead of what it cannot import."""
    path = folder / "config_sentence_transformers.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["requirements"] = {
        "hybrid-retriever": {"specifier": ">=0.1.0", "reason": "the model's module is one of this package"}
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _card(view: str, module: EncoderView) -> str:
    kind = "SparseEncoder" if view == "sparse" else "SentenceTransformer"
    return (
        f"---\nlibrary_name: sentence-transformers\n---\n# The {view} view of a retriever encoder\n\n"
        f"{module.get_embedding_dimension()} dimensions, {module.max_seq_length} tokens of a text.\n\n"
        f"```python\nfrom sentence_transformers import {kind}\n\n"
        f'model = {kind}("this-folder", trust_remote_code=True)  # needs pip install hybrid-retriever\n'
        'queries, documents = model.encode_query(["a question"]), model.encode_document(["a passage"])\n```\n'
    )
