"""Ways to score the layers of a network on one image, from a shared sweep or without one."""
