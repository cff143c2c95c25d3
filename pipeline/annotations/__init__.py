"""Annotations that come with the factory: text about a record, kept with who wrote it and how."""
