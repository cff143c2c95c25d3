"""One file a verb of the `unifactory` command."""
