"""The paper's ablations as paired experiments: ``ram reproduce``."""
