"""A record's way from a source to a shard: sources, measures, annotations, sequences, and the engine."""
