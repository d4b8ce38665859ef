"""What follows the fusion: feedback, rerankers, late interaction, diversity, put together as a pipeline."""

from retriever.rank.expand import Expand
from retriever.rank.feedback import Feedback
from retriever.rank.late import LateInteraction
from retriever.rank.mmr import Mmr
from retriever.rank.pipeline import Pipeline
from retriever.rank.rerank import Duo, Rerank
from retriever.rank.rescore import Rescore
from retriever.rank.stage import register

__all__ = ["Duo", "Expand", "Feedback", "LateInteraction", "Mmr", "Pipeline", "Rerank", "Rescore"]

for stage in (Feedback, LateInteraction, Rescore, Rerank, Duo, Mmr, Expand):
    register(stage)
