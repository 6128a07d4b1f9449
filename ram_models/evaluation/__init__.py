"""Evaluation: metrics, test protocols, and tables beside the paper's."""
