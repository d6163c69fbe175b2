"""One command that measures training on a GPU: `python -m benchmarks.gpu --out FOLDER`."""
