"""Made-up pages in the markup of real sites, each with the words that a reader sees in it.

Used by tests/content/test_pages.py and tests/benchmarks/extraction.py.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_WORDS = re.findall(
    r"\w+",
    "the keeper of a lighthouse writes down what passes in fog and rain at night while two boats"
    " carry salt letters and stones to an island that nobody maps because its harbour moves",
)
_MENU = "".join(
    f"<li><a href='/{name}'>{name}</a></li>" for name in ("Start", "News", "Users", "Help")
)
_TOP = f"<nav><ul>{_MENU}</ul></nav>"
_END = "<footer><p>Powered by boards. All times are given in the zone of the harbour.</p></footer>"
SHORT = "Thanks, it worked."  # the shortest of the posts


def said(number: int, words: int = 30) -> str:
    """A text of its own for each number."""
    chosen = random.Random(number).choices(_WORDS, k=words)
    return f"Number{number} says that {' '.join(chosen)}."


def posts(number: int) -> list[str]:
    """The texts of a discussion: of several lengths, one of them very short."""
    texts = [said(n, 12 + 17 * n % 60) for n in range(number - 1)]
    return [*texts[:2], SHORT, *texts[2:]]


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>{head}"
        f"</head><body>{body}</body></html>"
    )


def _thread(
    post: str, before: str = "", after: str = "", head: str = ""
) -> Callable[[list[str]], str]:
    """A maker of pages of one board: `post` has the places N and TEXT."""

    def make(texts: list[str]) -> str:
        entries = "".join(
            post.replace("N1", str(n)).replace("TEXT", text) for n, text in enumerate(texts, 1)
        )
        return _page("A harbour that moves", _TOP + before + entries + after + _END, head)

    return make


DISCUSSIONS: dict[str, Callable[[list[str]], str]] = {
    "Hacker News": _thread(
        "<tr class='athing comtr' id='4N1'><td><table border='0'><tr><td class='ind' indent='0'>"
        "<img src='s.gif'></td><td class='votelinks'><center><a id='up_4N1' href='vote?id=4N1'>"
        "<div class='votearrow' title='upvote'></div></a></center></td><td class='default'><div"
        " style='margin-top:2px'><span class='comhead'><a href='user?id=uN1' class='hnuser'>uN1</a>"
        " <span class='age' title='2024-03-0N1T10:00:00'><a href='item?id=4N1'>N1 hours ago</a>"
        "</span></span></div><br><div class='comment'><div class='commtext c00'>TEXT</div><div"
        " class='reply'><p><font size='1'><u><a href='reply?id=4N1'>reply</a></u></font></div>"
        "</div></td></tr></table></td></tr>",
        "<center><table id='hnmain'><tr><td><table class='fatitem'><tr class='athing submission'>"
        "<td class='title'><span class='titleline'><a href='https://example.org/h'>A harbour that"
        " moves</a></span></td></tr></table><table class='comment-tree'>",
        "</table></td></tr></table></center>",
    ),
    "Stack Exchange": lambda texts: _page(
        "A harbour that moves",
        f"{_TOP}<div id='content' itemscope itemtype='https://schema.org/QAPage'><div itemprop="
        "'mainEntity' itemscope itemtype='https://schema.org/Question'><h1 itemprop='name'>Why does"
        " a harbour move?</h1><div class='question js-question' data-questionid='1'><div class="
        "'votecell post-layout--left'><span itemprop='upvoteCount'>7</span></div><div class="
        f"'postcell post-layout--right'><div class='s-prose js-post-body' itemprop='text'><p>"
        f"{texts[0]}</p></div><div class='post-signature'>asked Mar 4 at 10:00 by u1</div></div>"
        "<div class='post-layout--right js-post-comments-component'><div class='comments'><ul"
        " class="
        "'comments-list js-comments-list'>"
        + "".join(
            f"<li id='comment-{n}' class='comment js-comment'><div class='comment-text'><div class="
            f"'comment-body'><span class='comment-copy'>{text}</span> – <a class='comment-user'"
            f" href='/users/{n}'>u{n}</a></div></div></li>"
            for n, text in enumerate(texts[1:3])
        )
        + "</ul></div></div></div><div id='answers'>"
        + "".join(
            f"<div id='answer-{n}' class='answer js-answer' itemprop='suggestedAnswer' itemscope"
            " itemtype='https://schema.org/Answer'><div class='answercell post-layout--right'><div"
            f" class='s-prose js-post-body' itemprop='text'><p>{text}</p></div></div></div>"
            for n, text in enumerate(texts[3:])
        )
        + "</div></div><div id='sidebar'><div class='related'>Related questions</div></div></div>"
        + _END,
    ),
    "Discourse": _thread(
        "<div id='post_N1' itemprop='comment' itemscope itemtype='http://schema.org/Comment' class="
        "'topic-body crawler-post'><div class='crawler-post-meta'><span class='creator' itemprop="
        "'author'><a itemprop='url' href='/u/uN1'><span itemprop='name'>uN1</span></a></span><span"
        " class='crawler-post-infos'><time itemprop='datePublished'"
        " datetime='2024-03-0N1T10:00:00Z'"
        ">March N1, 2024, 10:00am</time></span></div><div class='post' itemprop='text'><p>TEXT</p>"
        "</div></div>",
        "<div id='main-outlet' class='wrap' role='main'><div id='topic-title'><h1><a href='/t/1'>A"
        " harbour that moves</a></h1></div><div itemscope itemtype="
        "'http://schema.org/DiscussionForumPosting'>",
        "</div></div>",
    ),
    "phpBB": _thread(
        "<div id='pN1' class='post has-profile bg2'><div class='inner'><dl class='postprofile'><dt>"
        "<a href='memberlist.php?u=N1' class='username'>uN1</a></dt><dd class='profile-posts'>"
        "<strong>Posts:</strong> N1</dd></dl><div class='postbody'><div id='post_contentN1'><h3>"
        "<a href='#pN1'>Re: A harbour that moves</a></h3><ul class='post-buttons'><li><a href='q'"
        " title='Reply with quote'><span>Quote</span></a></li></ul><p class='author'>by uN1 » Mon"
        " Mar 0N1, 2024 10:00 am</p><div class='content'>TEXT</div></div></div></div></div>",
        "<div id='wrap' class='wrap'><div id='page-body' class='page-body' role='main'><h2 class="
        "'topic-title'>A harbour that moves</h2>",
        "</div></div>",
    ),
    "vBulletin": _thread(
        "<li class='postbitlegacy postbitim postcontainer' id='post_N1'><div class='posthead'><span"
        " class='date'>0N1-03-2024</span></div><div class='postdetails'><div class='userinfo'><a"
        " class='username'>uN1</a><dl class='userinfo_extra'><dt>Join Date</dt><dd>Mar 2024</dd>"
        "</dl></div><div class='postbody'><div class='postrow'><div class='content'><div id="
        "'post_message_N1'><blockquote class='postcontent restore'>TEXT</blockquote></div></div>"
        "</div></div></div></li>",
        "<div class='above_body'></div><div class='body_wrapper'><ol id='posts' class='posts'>",
        "</ol></div>",
    ),
    "XenForo": _thread(
        "<article class='message message--post js-post' data-author='uN1' id='js-post-N1'><div"
        " class"
        "='message-inner'><div class='message-cell message-cell--user'><section class="
        "'message-user'><h4 class='message-name'><a class='username'>uN1</a></h4></section></div>"
        "<div class='message-cell message-cell--main'><div class='message-main'><header class="
        "'message-attribution'><time class='u-dt' datetime='2024-03-0N1T10:00:00+0000'>Mar N1, 2024"
        "</time></header><div class='message-content'><article class='message-body"
        " js-selectToQuote'"
        "><div class='bbWrapper'>TEXT</div></article></div><footer class='message-footer'><a href="
        "'r'>Reply</a></footer></div></div></div></article>",
        "<div class='p-body'><div class='p-body-main'><div class='block-body js-replyNewMessage"
        "Container'>",
        "</div></div></div>",
    ),
    "Reddit": _thread(
        "<div class='thing id-t1_N1 noncollapsed comment' id='thing_t1_N1'><div class='entry"
        " unvoted'><p class='tagline'><a class='author' href='/user/uN1'>uN1</a> <span class='score"
        " unvoted'>N1 points</span> <time datetime='2024-03-0N1T10:00:00+00:00'>N1 hours ago</time>"
        "</p><form class='usertext' id='form-t1_N1'><div class='usertext-body'><div class='md'><p>"
        "TEXT</p></div></div></form><ul class='flat-list buttons'><li><a>permalink</a></li><li><a>"
        "reply</a></li></ul></div><div class='child'></div></div>",
        "<div class='content' role='main'><div class='sitetable linklisting'><div class='thing"
        " link'><p class='title'><a class='title' href='/h'>A harbour that moves</a></p></div>"
        "</div>"
        "<div class='commentarea'><div class='sitetable nestedlisting'>",
        "</div></div></div>",
    ),
    "Lobsters": _thread(
        "<li class='comments_subtree'><input id='comment_folder_N1' class='comment_folder_button'"
        " type='checkbox'><div id='c_N1' class='comment'><div class='details'><div class='byline'>"
        "<a href='/~uN1'>uN1</a> N1 hours ago</div><div class='comment_text'><p>TEXT</p></div>"
        "</div>"
        "</div></li>",
        "<div id='inside'><ol class='stories list'><li class='story'><div class='details'><span"
        " class='link'><a class='u-url' href='https://example.org/h'>A harbour that moves</a>"
        "</span>"
        "</div></li></ol><ol class='comments comments1'>",
        "</ol></div>",
    ),
    "GitHub": _thread(
        "<div class='timeline-comment-group js-minimizable-comment-group js-targetable-element' id="
        "'issuecomment-N1'><div class='timeline-comment-header'><h3><strong><a class='author' href="
        "'/uN1'>uN1</a></strong> commented <relative-time>Mar N1, 2024</relative-time></h3></div>"
        "<div class='edit-comment-hide'><table class='d-block'><tbody class='d-block'><tr class="
        "'d-block'><td class='d-block comment-body markdown-body js-comment-body'><p dir='auto'>"
        "TEXT"
        "</p></td></tr></tbody></table></div></div>",
        "<main><div id='show_issue' class='js-issues-results'><h1><bdi class='js-issue-title'>A"
        " harbour that moves</bdi></h1>",
        "</div></main>",
    ),
    "Simple Machines": _thread(
        "<div class='windowbg'><div class='post_wrapper'><div class='poster'><h4><a href='u'>"
        "uN1</a>"
        "</h4><ul><li>Posts: N1</li></ul></div><div class='postarea'><div class='flow_hidden'><div"
        " class='keyinfo'><h5 id='subject_N1'><a href='#msgN1'>Re: A harbour</a></h5></div></div>"
        "<div class='post'><div class='inner' id='msg_N1'>TEXT</div></div></div></div></div>",
        "<div id='wrapper'><div id='content_section'><div id='main_content_section'><div id="
        "'forumposts'>",
        "</div></div></div></div>",
    ),
    "Discuz": _thread(
        "<div id='post_N1'><table id='pidN1' class='plhin'><tr><td class='pls'><div class='authi'>"
        "<a class='xw1'>uN1</a></div></td><td class='plc'><div class='pct'><div class='pcb'><div"
        " class='t_fsz'><table><tr><td class='t_f' id='postmessage_N1'>TEXT</td></tr></table></div>"
        "</div></div></td></tr></table></div>",
        "<div id='wp' class='wp'><div id='ct'><div id='postlist' class='pl bm'>",
        "</div></div></div>",
    ),
    "WordPress forum": _thread(
        "<li><div id='post-N1' class='bbp-reply-header'><div class='bbp-meta'><span class="
        "'bbp-reply-post-date'>March N1, 2024 at 10:00 am</span></div></div><div"
        " class='loop-item-N1"
        " post-N1 reply type-reply'><div class='bbp-reply-author'><a class='bbp-author-link'>"
        "uN1</a>"
        "</div><div class='bbp-reply-content'><p>TEXT</p></div></div></li>",
        "<main id='main'><div id='bbpress-forums' class='bbpress-wrapper'><ul id='topic-1-replies'"
        " class='forums bbp-replies'>",
        "</ul></div></main>",
    ),
}

STORY = "".join(f"<p>{said(n, 60)}</p>" for n in range(100, 106))


def article(more: str = "", head: str = "", after: str = "") -> str:
    """An article of six paragraphs with something more in it, and something after it."""
    body = f"<article><h1>A harbour that moves</h1>{STORY}{more}</article>{after}"
    return _page("A harbour that moves", _TOP + body + _END, head)


_ROW = "<tr><td>{0}</td><td><ul><li>{1}</li><li>Shut on the {0}th</li></ul></td></tr>"
# What an article has besides paragraphs, and the words in it.
PARTS: dict[str, tuple[str, list[str]]] = {
    "lists in a table": (
        "<table>" + "".join(_ROW.format(n, said(n, 4)) for n in range(4)) + "</table>",
        [said(n, 4) for n in range(4)] + ["Shut on the 3th"],
    ),
    "a caption of a table": (
        f"<table><caption>{said(10, 9)}</caption><tr><th>Day</th><th>Boats</th></tr><tr><td>Monday"
        "</td><td>eleven boats</td></tr></table>",
        [said(10, 9), "eleven boats"],
    ),
    "a figure": (
        f"<figure><img src='p.jpg' alt='pier'><figcaption>{said(11, 9)}</figcaption></figure>",
        [said(11, 9)],
    ),
    "a picture of WordPress": (
        f"<div class='wp-caption alignleft' id='attachment_7'><img src='p.jpg'><p id='caption-7'"
        f" class='wp-caption-text'>{said(12, 9)}</p></div>",
        [said(12, 9)],
    ),
    "a definition list": (
        f"<dl><dt>Crate</dt><dd>{said(13, 9)}</dd><dt>Pier</dt><dd><p>{said(14, 9)}</p><ul><li>"
        f"{said(15, 5)}</li></ul></dd></dl>",
        ["Crate", said(13, 9), "Pier", said(14, 9), said(15, 5)],
    ),
    "details": (
        f"<details><summary>{said(16, 5)}</summary>{said(17, 12)}<div>{said(18, 12)}</div>"
        f"</details>",
        [said(16, 5), said(17, 12), said(18, 12)],
    ),
    "an accordion": (
        "".join(
            "<div class='accordion-item'><h2><button class='accordion-button'"
            " aria-expanded='false'>"
            f"{said(30 + n, 5)}</button></h2><div class='collapse'><div class='accordion-body'>"
            f"{said(40 + n, 12)}</div></div></div>"
            for n in range(3)
        ),
        [said(number + n, words) for n in range(3) for number, words in ((30, 5), (40, 12))],
    ),
    "tabs": (
        f"<div><div role='tabpanel'>{said(50, 12)}</div><div role='tabpanel' hidden>{said(51, 12)}"
        "</div></div>",
        [said(50, 12), said(51, 12)],
    ),
    "a note": (
        f"<aside class='admonition note'><p>{said(19, 12)}</p></aside>",
        [said(19, 12)],
    ),
    "footnotes": (
        f"<section class='footnotes'><ol><li id='fn1'><p>{said(20, 12)} <a href='#r1'>↩</a></p>"
        f"</li>"
        "</ol></section>",
        [said(20, 12)],
    ),
    "text between blocks": (
        f"<div>{said(21, 12)}<p>{said(22, 12)}</p>{said(23, 12)}<br>{said(24, 12)}</div>",
        [said(n, 12) for n in (21, 22, 23, 24)],
    ),
    "a time in a sentence": (
        f"<p>On <time datetime='2024-03-04'>the fourth of March</time> {said(25, 12)}</p>",
        [f"On the fourth of March {said(25, 12)}"],
    ),
    "a quotation": (
        f"<blockquote><div>{said(26, 12)}</div><footer>{said(27, 3)}</footer></blockquote>",
        [said(26, 12)],
    ),
}


def discussion(name: str, number: int = 9) -> tuple[str, list[str]]:
    """A page of one of `DISCUSSIONS`, and its texts."""
    texts = posts(number)
    return DISCUSSIONS[name](texts), texts
