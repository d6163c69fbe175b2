"""The loss terms: a file each, with a function of the file's name. A new file is a new term of `train.losses`."""
