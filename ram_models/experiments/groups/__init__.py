"""Groups of layers trained alone: which score foresees what a group can do."""
