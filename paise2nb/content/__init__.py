"""From a URL to an item: the core tasks, and the fetchers, extractors and sources they use."""
