"""Which unlabelled images to label next, from the codes of labelled and unlabelled ones."""
