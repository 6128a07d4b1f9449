"""The RAM networks."""
