"""Imported captions: tables that people or other models have written, as captions of the store."""

IMPORTED = "table"  # what the captions table calls the engine of imported captions
