"""What every stage stands on: config, storage, identity, schemas, the stage contract and the ingest of images.

Importing this package loads no heavy library (no torch, ray, vllm, prefect or open_clip).
"""
