"""The doors: the unifactory command, one file a verb, and the recipes."""
