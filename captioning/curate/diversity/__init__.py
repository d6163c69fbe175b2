"""Figures, plots and reports of how diverse captions are."""
