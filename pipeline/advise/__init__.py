"""Advice: which strategy, layers and network suit a data set, with the measurements behind it."""
