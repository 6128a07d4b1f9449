"""Training: configuration, crops, losses, validation, a resumable loop and the folder of a run."""
