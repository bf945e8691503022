"""Linear classifiers on frozen pretrained networks, fine-tuning beside them, honestly compared."""

__version__ = "0.1.0"
