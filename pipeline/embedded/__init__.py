"""The embedded corpus: pictures a dependency ships and pictures drawn by code, each with a known answer."""
