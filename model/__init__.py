"""LLaDA2.0-Uni: vocabulary, templates, tokenizers, backbone, decoder, checkpoints."""
