"""Where records come from: one file per kind of source, all yielding `SourceRow`s in a fixed order."""
