"""Talk: sentences in which a model speaks, where a caption only describes."""
