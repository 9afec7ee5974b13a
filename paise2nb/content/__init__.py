"""From a URL to an item: fetchers, extractors, sources and the four core tasks."""
