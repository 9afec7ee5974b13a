"""Fixtures and rules for authors of plugins.

With ``pytest_plugins = ["paise2nb.testing"]`` in ``conftest.py`` tests have the fixtures
``paise2_app``, ``paise2_settings`` and ``paise2_site``. The rules check a cache, store, queue,
fetcher or extractor. A failed rule names the problem and how to fix it:

    @pytest.mark.parametrize("rule", rules("cache"), ids=str)
    def test_my_cache(rule):
        rule.check(MyCache)
"""

from paise2nb.core.errors import UsageError
from paise2nb.testing import content, queues, storage
from paise2nb.testing.fixtures import Site, paise2_app, paise2_settings, paise2_site, run_all
from paise2nb.testing.rule import Broken, Extracting, Fetching, Rule

__all__ = ["Broken", "Extracting", "Fetching", "Rule", "Site", "rules", "run_all"]
__all__ += ["paise2_app", "paise2_settings", "paise2_site"]


KINDS = {
    "CacheProvider": "cache",
    "DataStorageProvider": "store",
    "TaskQueueProvider": "queue",
    "ContentFetcher": "fetcher",
    "ContentExtractor": "extractor",
}


def rules(kind: str) -> list[Rule]:
    """List the rules for one kind of part.

    Args:
        kind: ``cache``, ``store``, ``queue``, ``fetcher`` or ``extractor``, or the name of the
            protocol, such as ``CacheProvider``.

    Raises:
        UsageError: There is no such kind.
    """
    wanted = KINDS.get(kind, kind)
    if wanted not in KINDS.values():
        raise UsageError(f"unknown kind {kind!r}; known: {', '.join(KINDS.values())}")
    parts = {**vars(storage), **vars(queues), **vars(content)}
    return [part for part in parts.values() if isinstance(part, Rule) and part.kind == wanted]
