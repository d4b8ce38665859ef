"""The place of `EncoderView` until version 0.1: folders exported then name it in their `modules.json`."""

from retriever.integrations.view_module import EncoderView

__all__ = ["EncoderView"]
