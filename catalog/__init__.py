"""What is known: tables, snapshots, decisions, shards, audit, report."""
