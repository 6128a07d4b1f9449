"""How sure a ranking is: intervals over images, agreement between rankings, stopping, step errors."""
