"""The prose of a page: its long pieces of text, which show what an extraction lost.

An extractor of articles drops what it takes for boilerplate. It is wrong where the comments are the
content, where text is in markup that articles seldom have, and where a page is no article.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, NamedTuple

from lxml.etree import XPath, iterwalk

from paise2nb.content.extract.visible import INLINE

LONG = 40  # characters from which on a text is long
MOST = 0.5  # a page of which less than this share is kept is no article: take all of its prose
REGION = 0.9  # of what was kept lies in the part of the page in which losses are looked for
AHEAD = 200  # lines that are searched for the next text, which an extraction may have changed
MAX_EFFORT = 10**10  # characters that are searched for texts; what comes then counts as kept
LIKENESSES = 50  # kinds of elements that are searched for short posts; a page has one or two
FEW = 500  # characters of a text that is only the occasion of its comments
_PIECES = XPath(
    f"//body//text()[string-length(normalize-space()) >= {LONG}][not(parent::script|parent::style)]"
)
_IS_ARTICLE = XPath(
    "boolean(//meta[@property='og:type' and @content='article'] | //*[@itemprop='articleBody']"
    " | //article[not(ancestor-or-self::*[contains(@class, 'omment')])]"
    " | //*[contains(@class, 'entry-content') or contains(@class, 'hentry')])"
)
_IS_DISCUSSION = XPath(
    "boolean(//*[contains(@itemtype, '/QAPage') or contains(@itemtype, '/DiscussionForumPosting')]"
    " | //script[contains(., '\"QAPage\"') or contains(., '\"DiscussionForumPosting\"')])"
)
_BY_CLASS = XPath("//*[contains(concat(' ', normalize-space(@class), ' '), $name)]")
_BY_ID = XPath("//*[starts-with(@id, $stem)]")
_CONTROLS = XPath("boolean(.//textarea | .//select | .//button | .//input[@type != 'hidden'])")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOISE_TAGS = _words("""
    script style template noscript svg iframe object audio video nav footer aside button select
    textarea dialog datalist menu label
""")
_NOISE_ROLES = _words("navigation banner contentinfo complementary search dialog")
_WHOLE = _words("html body main")


def _in_names(words: str) -> re.Pattern[str]:
    """Finds words in names of classes: "post" in ``post-body``, ``postBody`` and ``BlogPost``."""
    either = "|".join(words.split())
    upper = "|".join(word.capitalize() for word in words.split())
    return re.compile(rf"(?:(?<![A-Za-z])(?:{either})|(?<![A-Z])(?:{upper}))(?![a-z])")


_NOISE = _in_names("""
    nav navbar navigation menu breadcrumbs? sidebar footer share sharing social related recommended
    recommendations promo newsletter subscribe signup signin login cookies? consent gdpr banner
    ads? advert advertisement sponsored popup modal overlay toolbar pagination pager trending
    popular masthead copyright paywall outbrain taboola tooltip bio byline contributor
""")
# The parts of a discussion, the most telling names first. Those of a blog have comments, too.
_POSTS = {
    "message": _in_names("comtr commtext postbody postcontent postmessage"),
    "comment": _in_names("comments?"),
    "reply": _in_names("reply replies answers? messages?"),
    "post": _in_names("posts? question"),
}


class _Place(NamedTuple):
    """What an element and its ancestors say about the text in it."""

    noise: tuple[Any, ...] = ()  # those that look like boilerplate
    post: Any = None  # the innermost one that looks like a post
    kind: str = ""  # of that post, or of one around it if that is more telling
    is_link: bool = False


class _Piece(NamedTuple):
    """A long text, and the element that it is in."""

    text: str
    element: Any
    place: _Place


class Prose:
    """The long texts of a page, without boilerplate.

    Args:
        tree: The page, which must not be changed as long as this is used.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._places: dict[Any, _Place] = {}
        found = []
        for text in _PIECES(tree):
            element = text.getparent().getparent() if text.is_tail else text.getparent()
            found.append(_Piece(" ".join(text.split()), element, self._place(element)))
        sizes = Counter[Any]()
        for piece in found:
            sizes.update(dict.fromkeys(piece.place.noise, len(piece.text)))
        most = sum(len(piece.text) for piece in found) / 2
        # What holds half of a page is no boilerplate, whatever its name is.
        found = [piece for piece in found if all(sizes[e] > most for e in piece.place.noise)]
        links = sum(len(piece.text) for piece in found if piece.place.is_link)
        is_list = 2 * links > sum(len(piece.text) for piece in found)
        self._pieces = [piece for piece in found if is_list or not piece.place.is_link]
        self.posts = self._find_posts()
        if not self.posts:
            self._pieces = [piece for piece in self._pieces if piece.place.kind != "comment"]

    def lost(self, body: str) -> list[_Piece]:
        """The long texts of the page that an extracted text does not have."""
        at, missing, effort = 0, [], 0
        for piece in self._pieces:
            found = body.find(piece.text, at)
            if found >= 0:
                at = found
            elif effort < MAX_EFFORT:
                effort += 2 * len(body)
                missing.append(piece)
        whole = squeezed(body) if missing else ""  # trafilatura changes spaces and order
        return [piece for piece in missing if squeezed(piece.text) not in whole]

    def share(self, lost: list[_Piece]) -> float:
        """The share of the prose that is lost, from 0 to 1."""
        total = sum(len(piece.text) for piece in self._pieces)
        return sum(len(piece.text) for piece in lost) / total if total else 0.0

    def completed(self, body: str, lost: list[_Piece]) -> str:
        """An extracted text with what is lost.

        Args:
            body: The extracted text, with a block of the page in each line.
            lost: What it does not have.
        """
        if self.posts:
            posts = [line for post in self.posts for line in lines_of(post)]
            whole = squeezed("".join(posts))
            others = [line for line in body.split("\n") if squeezed(line) not in whole]
            return "\n".join([*others, *posts])
        return self._with(lost, body) if lost else body

    def _with(self, lost: list[_Piece], body: str) -> str:
        """A text with the blocks of lost pieces behind what they come after in the page."""
        missing = {id(piece) for piece in lost}
        kept = Counter[Any]()  # how much of the prose in each element
        for piece in self._pieces:
            if id(piece) not in missing:
                kept.update(dict.fromkeys(_upwards(piece.element), len(piece.text)))
        region = None
        if self.share(lost) < MOST:
            most = REGION * max(kept.values())
            region = max((e for e in kept if kept[e] >= most), key=lambda e: len(_upwards(e)))
        lines: list[str] = []  # those before the last piece, in reading order
        rest = body.split("\n")[::-1]
        done = set()
        for piece in self._pieces:
            around = _upwards(piece.element)
            if id(piece) not in missing:
                ahead = enumerate(islice(reversed(rest), AHEAD), 1)
                at = next((n for n, line in ahead if piece.text in line), 0)
                lines += [rest.pop() for _ in range(at)]
            elif region is None or region in around:
                block = next((e for e in reversed(around) if e not in kept), None)
                if block is None or block not in done:
                    done.add(block)
                    lines += [piece.text] if block is None else lines_of(block)
        return "\n".join([*lines, *reversed(rest)])

    def _place(self, element: Any) -> _Place:
        if element is None:
            return _Place()
        if element not in self._places:
            noise, post, kind, is_link = self._place(element.getparent())
            if _is_noise(element):
                noise = (*noise, element)
            if own := kind_of_post(element):
                post, kind = element, min(own, kind or own, key=[*_POSTS].index)
            self._places[element] = _Place(noise, post, kind, is_link or element.tag == "a")
        return self._places[element]

    def _find_posts(self) -> list[Any]:
        """The posts of a discussion in their order, or none if the page is something else."""
        sizes: dict[str, Counter[Any]] = {kind: Counter() for kind in ("", *_POSTS)}
        for piece in self._pieces:
            sizes[piece.place.kind][piece.place.post] += len(piece.text)
        message, comment, reply, post = (sizes[kind].total() for kind in _POSTS)
        article = sizes[""].total() + post
        kinds: Iterable[str] = ()
        if (
            (message + comment + reply + post > 0 and _IS_DISCUSSION(self._tree))
            or len(sizes["message"]) > 1
            or (len(sizes["reply"]) > 1 and 3 * reply > article)
            or (comment > 2 * article and (article < FEW or not (post or _IS_ARTICLE(self._tree))))
        ):
            kinds = _POSTS
        elif len(sizes["post"]) > 2 and 2 * max(sizes["post"].values()) < post:
            kinds = ("post",)
        found = {post for kind in kinds for post in sizes[kind]}
        for likeness in islice({_likeness(post) for post in found}, LIKENESSES):
            found.update(_alike(self._tree, *likeness))
        return outermost(self._tree, found)


def outermost(tree: Any, found: set[Any]) -> list[Any]:
    """Those of some elements that are in none of the others, in the order of the page."""
    if not found:
        return []
    return [
        element
        for element in tree.iter(*{element.tag for element in found})
        if element in found and not any(outer in found for outer in element.iterancestors())
    ]


def _upwards(element: Any) -> list[Any]:
    return [element, *element.iterancestors()]


def squeezed(text: str) -> str:
    """A text without spaces and punctuation, for comparing it."""
    return re.sub(r"\W+", "", text)


def kind_of_post(element: Any) -> str:
    """The kind of post that the names of an element tell, or nothing."""
    return _kind(_names(element)) if element.tag not in _WHOLE else ""


def _names(element: Any) -> str:
    return f"{element.get('class') or ''} {element.get('id') or ''}"


@lru_cache(maxsize=4096)
def _kind(names: str) -> str:
    return next((kind for kind, words in _POSTS.items() if words.search(names)), "")


def _is_noise(element: Any) -> bool:
    if element.tag in _WHOLE:
        return False
    style = element.get("style") or ""
    return (
        element.tag in _NOISE_TAGS
        or (element.tag == "form" and _CONTROLS(element))
        or element.get("role") in _NOISE_ROLES
        or element.get("aria-hidden") == "true"
        or ("hidden" in element.attrib and element.get("role") != "tabpanel")
        or ("none" in style and "display:none" in style.replace(" ", ""))
        or _is_noisy(_names(element))
    )


@lru_cache(maxsize=4096)  # a site uses the same names on all of its pages
def _is_noisy(names: str) -> bool:
    return bool(_NOISE.search(names))


def _likeness(post: Any) -> tuple[str, str, str]:
    """The tag of a post, and the class or the beginning of the id by which it was found."""
    name = next((name for name in (post.get("class") or "").split() if _kind(name)), "")
    return post.tag, name, "" if name else (post.get("id") or "").rstrip("0123456789")


def _alike(tree: Any, tag: str, name: str, stem: str) -> list[Any]:
    """The elements of a likeness."""
    found = _BY_CLASS(tree, name=f" {name} ") if name else _BY_ID(tree, stem=stem)
    return [element for element in found if element.tag == tag]


def lines_of(element: Any) -> list[str]:
    """The text of an element, with a line for each block, without boilerplate in it."""
    parts: list[str] = []
    walk = iterwalk(element, events=("start", "end"))
    for event, inner in walk:
        is_block = inner.tag not in INLINE
        if event == "start":
            parts.append("\n" * is_block)
            if inner is not element and _is_noise(inner):
                walk.skip_subtree()
            else:
                parts.append(" ".join((inner.text or "").splitlines()))
        else:
            parts.append("\n" * is_block)
            if inner is not element:
                parts.append(" ".join((inner.tail or "").splitlines()))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return [line for line, _ in groupby(lines) if line]
