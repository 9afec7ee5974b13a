"""Import Huey without redis, which its storages import where it is installed.

That takes six times as long as Huey itself, in each command and each worker. A Huey on Redis loads
it when it is created.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


class _OnFirstUse:
    """Stands for a class of redis in Huey's module of storages."""

    def __init__(self, storage: Any, name: str) -> None:
        self._storage, self._name = storage, name

    def _loaded(self) -> Any:
        redis, storage = import_module("redis"), self._storage
        storage.Redis = storage.RedisStorage.redis_client = redis.Redis
        storage.ConnectionPool = redis.ConnectionPool
        storage.ConnectionError = redis.exceptions.ConnectionError
        storage.TimeoutError = redis.exceptions.TimeoutError
        return getattr(storage, self._name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._loaded()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded(), name)


def _import_huey() -> None:
    sys.modules["redis"] = None  # type: ignore[assignment]  # an import of it fails at once
    try:
        from huey import storage
    finally:
        del sys.modules["redis"]
    storage.Redis = storage.RedisStorage.redis_client = _OnFirstUse(storage, "Redis")
    storage.ConnectionPool = _OnFirstUse(storage, "ConnectionPool")


if not {"huey", "redis"} & sys.modules.keys() and find_spec("redis"):
    _import_huey()
