"""What training reads: shards to rows."""
