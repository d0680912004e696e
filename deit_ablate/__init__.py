"""deit-ablate: run the ablation study of a vision transformer's training recipe."""

__version__ = "0.1.0"
