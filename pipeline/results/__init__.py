"""Results: records, predictions, metrics and tables; read without scikit-learn or torch.

``runs`` writes and reads a run (``<run>.json`` and what lies with it), ``metrics`` computes every
figure from probabilities, ``tables`` lays figures out for the terminal.
"""
