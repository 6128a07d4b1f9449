"""How the paper's experiments are run: settings, networks, arms, runs, and what is finished."""
