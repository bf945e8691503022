"""Which method to use, and how sure that is.

Right of the results: what is compared are runs and their stored predictions. Learning curves and
advice also fit heads on cached codes; nothing here runs a network but through the stages before.
"""
