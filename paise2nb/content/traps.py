"""URLs that lead a crawl astray: calendars without end, session ids, paths that grow for ever.

A rule is for URLs that are of no use in almost every site. What a crawl leaves out is counted, and
a user can still fetch it by its URL.
"""

import re
import time
from collections import Counter
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

CALENDAR, LONG_PATH = "calendar", "long_path"
LONGEST = 2000  # characters of a URL
MOST_SEGMENTS = 16
# Times that a segment may occur in a path. Wrong relative links repeat a part of it on each page.
REPEATED = 2
EARLIEST = 1900  # a date before this year is hardly that of a page

# Parameters with the id of a session: of PHP, Java, ASP, ColdFusion, osCommerce, Zen Cart, …
_SESSION = re.compile(
    r"(?:\w{0,12}[_.-]?)?sess(?:ion)?[_-]?id\w{0,8}|phpsessid|cfid|cftoken|zenid|oscsid",
    re.IGNORECASE,
)
_SHORT_NAMES = ("s", "sid", "session")
# Neither a word nor the number of a page.
_SESSION_VALUE = re.compile(r"(?=\D*\d)(?=\d*[a-z])[0-9a-z]{10,}", re.IGNORECASE)
# ";jsessionid=1", and "/(S(1))" of ASP.NET.
_SESSION_IN_PATH = re.compile(
    r";(?:jsessionid|phpsessid|sid|sessionid)=[^/;?]*|/\([a-z]\([^()/]*\)\)", re.IGNORECASE
)
_CALENDAR = re.compile(
    r"[ck]al[ae]nd|agenda|\bcal\b|\bical|\btermine\b|\bevents?\b|veranstaltungen|tribe",
    re.IGNORECASE,
)
_VIEW = re.compile(r"list|month|week|day|year|grid|agenda|ical|index\.\w+", re.IGNORECASE)
# Most numbers at the end of a path are ids. Without marks between its parts, a date has a month.
_DATE_IN_PATH = re.compile(
    r"/(Y)(?:[-/._]\d{1,2}){1,2}$|/Y(?:0[1-9]|1[0-2])(?:[0-3]\d)?$"
    r"|/(Y)/?(?:w|kw|week)[-_]?\d{1,2}$".replace("Y", r"(?:1[89]|2[01])\d\d"),
    re.IGNORECASE,
)
_DATE_NAME = re.compile(r"(?:[\w-]*[_-])?(?:date|day|month|week|year|mon|ym|ymd)", re.IGNORECASE)
_SHORT_DATE_NAMES = ("y", "m", "d", "w")  # in a calendar
_YEAR = re.compile(r"\d{4}(?!\d)|\d{4}(?=\d\d(?:\d\d)?$)")


def without_session(url: str) -> str:
    """The URL without the id of a session, in its path or its query."""
    parts = urlsplit(url)
    query = "&".join(part for part in parts.query.split("&") if not _is_session(part))
    return urlunsplit((*parts[:2], _SESSION_IN_PATH.sub("", parts.path), query, ""))


def _is_session(parameter: str) -> bool:
    name, _, value = unquote(parameter).partition("=")
    if name.lower() in _SHORT_NAMES:
        return bool(_SESSION_VALUE.fullmatch(value))
    return bool(value and _SESSION.fullmatch(name))


def trap(url: str) -> str:
    """Why a crawl should not follow a URL; empty if it may."""
    parts = urlsplit(url)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    repeated = Counter(segment for segment in segments if not segment.isdigit())
    is_repeated = max(repeated.values(), default=0) > REPEATED
    if len(url) > LONGEST or len(segments) > MOST_SEGMENTS or is_repeated:
        return LONG_PATH
    return CALENDAR if _is_calendar(segments, parse_qsl(parts.query)) else ""


def _is_calendar(segments: list[str], parameters: list[tuple[str, str]]) -> bool:
    """Whether it is a page of a calendar, or of a time in which a site has no pages.

    The page of an event has a name after its date.
    """
    names = segments + [name for name, _ in parameters]
    while segments and _VIEW.fullmatch(segments[-1]):
        segments = segments[:-1]
    in_path = _DATE_IN_PATH.search("/" + "/".join(segments))
    dates = [v for name, v in parameters if _DATE_NAME.fullmatch(name) and v[:1].isdigit()]
    short = [v for name, v in parameters if name in _SHORT_DATE_NAMES and v.isdigit()]
    if (in_path or dates or short) and any(map(_CALENDAR.search, names)):
        return True
    years = [int(year) for year in in_path.groups() if year] if in_path else []
    years += [int(found[0]) for found in map(_YEAR.match, dates) if found]
    return any(not EARLIEST <= year <= time.gmtime().tm_year + 1 for year in years)
