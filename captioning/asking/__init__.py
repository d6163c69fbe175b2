"""Who is asked what, what of it is missing, and asking it: from cells to workers."""
