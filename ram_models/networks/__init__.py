"""The networks of RAM: architectures, pixel masks, checkpoints and inference on images of any size."""
