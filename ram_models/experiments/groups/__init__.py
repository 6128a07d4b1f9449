"""Groups of layers trained alone: which score predicts what a group gains."""
