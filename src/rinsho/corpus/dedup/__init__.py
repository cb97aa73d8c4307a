"""Deduplication: sketches of documents, near duplicates, frequent sentences."""
