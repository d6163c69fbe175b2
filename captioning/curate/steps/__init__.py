"""How a curation runs: its steps in order, each over all shards, here or on Ray."""
