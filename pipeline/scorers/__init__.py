"""Networks that look at pictures and give scores or vectors: loaded from local checkpoints, never from a hub."""
