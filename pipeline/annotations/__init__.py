"""Annotations that come with the factory: text about a record, kept with who wrote it and how."""

from pipeline.operator import register

register("metadata", "pipeline.annotations.metadata:Metadata")
register("openai", "pipeline.annotations.openai:OpenAI")
