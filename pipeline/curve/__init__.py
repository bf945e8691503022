"""Learning curves: accuracy against labelled images per class, and where two methods cross."""
