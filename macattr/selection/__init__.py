"""From a ranking to layers that are trained: rules, controls, freezing, and exports for other tools."""
