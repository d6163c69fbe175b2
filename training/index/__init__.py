"""The training index: what training needs of the bundles, on disk, mapped into memory and shared by all that read it.

`piece.py` has the samples of one part of the bundles as columns, with the tokens of their captions; a piece is named
by what it is made of, so it is made once, and again only when its shard's bundles change. `order.py` puts the pieces'
samples in one order, in which a picture of several rows is one sample. `build.py` makes what is missing of both.
"""
