"""Captions that are there already, in tables of people or of other models, as captions of the store."""

IMPORTED = "table"  # what the captions table calls the engine of imported captions
