"""Evaluation: metrics, test protocols, and tables next to the paper's."""
