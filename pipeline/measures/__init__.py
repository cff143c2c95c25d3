"""Measures that come with the factory: they look at a record and write columns, they never drop."""
