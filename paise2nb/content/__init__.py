"""From a URL to an item: the four core tasks, and the fetchers, extractors and sources they use."""
