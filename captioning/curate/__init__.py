"""Curation: gadgets that clean, reject and diversify captions, and the bundles that training reads."""
