"""Denoising alone: networks pre-trained for it, layers at equal parameters, and noise that training never shows."""
