"""Gadgets: one file each; a gadget cleans, scores or drops captions and says why."""
