"""The study: which captions, branches and losses make the better CLIP, on rendered scenes whose truth is known.

    python -m benchmarks.study world                    the scenes, once
    python -m benchmarks.study captions                 what the demo VLM says of the training scenes, once
    python -m benchmarks.study emoji                    real pictures, once
    python -m benchmarks.study start ROW                the model that a row starts from; `run` makes it too
    python -m benchmarks.study run ROW ... --seeds 0,1  trains and measures rows, goes on where it stopped
    python -m benchmarks.study gather FILE              all results in one file
    python -m benchmarks.study table                    the tables
    python -m benchmarks.study plot develop FILE        a picture of them
    python -m benchmarks.study smoke                    a toy of all this

Rows are recipes (rows.yaml), columns are figures of `evaluate`. Every run of a row is an ordinary `holism run`.
"""
