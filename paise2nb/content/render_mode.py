"""Which pages a browser renders, by the settings."""

from paise2nb.config.settings import FetchSettings
from paise2nb.core.urls import DEFAULT_PORTS, host_of, scheme_of

NEVER, AUTO, ALWAYS = "never", "auto", "always"


def render_mode(settings: FetchSettings, url: str) -> str:
    """Whether a URL is rendered: ``never``, ``auto`` or ``always``."""
    if scheme_of(url) not in DEFAULT_PORTS:
        return NEVER
    if not settings.render_hosts:
        return settings.render
    host = host_of(url) or ""
    above = [f"*.{host[index + 1 :]}" for index, letter in enumerate(host) if letter == "."]
    found = (settings.render_hosts.get(name) for name in (host, *above))
    return next(filter(None, found), settings.render)
