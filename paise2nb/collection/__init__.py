"""The collection: items with their full text, the cache of raw bytes, export."""
