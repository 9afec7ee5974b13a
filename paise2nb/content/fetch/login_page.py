"""Tell a login page, to which a site redirects, from other pages with a login on them.

Many pages have a small form for the login in their header, so a password field alone says nothing.
"""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from paise2nb.content.extract.types import PAGES
from paise2nb.plugins import Fetched

HEAD = 1 << 20  # bytes of a page that are searched
SHORT = 1500  # bytes of visible text; a page at a login's URL with more is an article about it

# A segment of a path, without an ending such as .php; or the first name of a host.
_SURE = re.compile(r"(?:wp-|user-|account-)?(?:log|sign)[-_]?[io]n(?:[-_]?(?:form|page))?", re.I)
_LIKELY = re.compile(
    r"auth|authenticate|authentication|authorize|oauth2?|openid-connect|sso|saml2?|idp|cas|wayf"
    r"|shibboleth|anmelden|anmeldung|connexion|inloggen|entrar|acceso",
    re.I,
)
_HOST = re.compile(r"login|logon|signin|auth|sso|idp|cas|oauth|accounts?|id|identity", re.I)
_TITLE = re.compile(
    (
        r"<(?:title|h1|h2|legend)\b[^<>]*+>[^<]*?(?:\b(?:log ?in|log on|sign ?in|anmeld|einlogg"
        r"|connexion|se connecter|iniciar ses|accedi|inlog|entrar|zaloguj)"
        r"|ログイン|登录|登錄|登入|로그인|Войти|Вход(?![\xd0\xd1])|Увійти)"
    ).encode(),
    re.I,
)
_SOURCE = re.compile(r"^(?:ref|source|src|from|via)|^utm_|referr?er", re.I)  # not where one is
_PASSWORD = re.compile(rb"<input\b[^<>]*?\btype\s*=\s*[\"']?password\b", re.I)
_UNSEEN = re.compile(
    rb"<!--(?:(?!-->).)*+|<(script|style|template|textarea|noscript)\b(?:(?!</\1).)*+", re.I | re.S
)


def leads_to_login(chain: Sequence[str], fetched: Fetched) -> bool:
    """Whether redirects have led from a page to a login page.

    Args:
        chain: The URLs. The last one is that of the page.
        fetched: The page.
    """
    asked, landed = urlsplit(chain[0]), urlsplit(chain[-1])
    if fetched.mime_type not in (None, *PAGES) or _has(_SURE, asked.path) or _names_login(asked):
        return False  # a login page that was asked for is a page
    page = _UNSEEN.sub(b"", fetched.data[:HEAD])
    other_host = (landed.hostname or "").partition(".")[0] if landed.netloc != asked.netloc else ""
    is_login_host = bool(_HOST.fullmatch(other_host))
    comes_back = any(_is_named(url, landed.query) for url in chain[:-1])
    is_sure, is_likely = _has(_SURE, landed.path), _has(_LIKELY, landed.path) or is_login_host
    is_likely = is_likely or _names_login(landed)
    if _PASSWORD.search(page):
        return bool(is_sure or is_likely or comes_back or _TITLE.search(page))
    # It may ask for a name first, or scripts make its form.
    text = re.sub(rb"<[^<>]*+>|\s", b"", page)
    return (is_sure or (is_likely and comes_back)) and len(text) < SHORT


def _has(pattern: re.Pattern[str], path: str) -> bool:
    return any(pattern.fullmatch(segment.partition(".")[0]) for segment in path.split("/"))


def _names_login(url: SplitResult) -> bool:
    """Whether a parameter says so, such as in ``?action=login``."""
    return any(_SURE.fullmatch(v) for name, v in parse_qsl(url.query) if not _SOURCE.search(name))


def _is_named(url: str, query: str) -> bool:
    """Whether a query has a URL or its path, to come back to after the login."""
    there, path = unquote(unquote(query)), urlsplit(url).path
    return url in there or (len(path) > 1 and path in there)
