"""The MoE encoder: texts tokenised, batched and sent through the network, and queries that are remembered."""
