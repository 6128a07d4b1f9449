"""LayerBench: what choosing layers by each method is worth on real pre-trained networks that meet other data."""
