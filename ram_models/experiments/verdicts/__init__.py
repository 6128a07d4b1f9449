"""What the runs say: statistics of paired differences, and verdicts on claims."""
