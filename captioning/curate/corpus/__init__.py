"""What is known about the captions of all images together, learnt shard by shard."""
