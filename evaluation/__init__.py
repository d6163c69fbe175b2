"""Measures trained models on benchmark folders: retrieval, classification, branches; a table and a report."""
