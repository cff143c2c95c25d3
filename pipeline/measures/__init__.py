"""Measures that come with the factory: they look at a record and write columns, they never drop."""

from pipeline.operator import register

register("header", "pipeline.measures.header:Header")
register("pixels", "pipeline.measures.pixels:Pixels")
register("phash", "pipeline.measures.phash:PHash")
register("text", "pipeline.measures.text:Text")
register("scores", "pipeline.measures.scores:Scores")
