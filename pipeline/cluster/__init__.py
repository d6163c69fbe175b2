"""Work on a Ray cluster, or on a Ray of this machine: the connection, actors, and room for them."""
