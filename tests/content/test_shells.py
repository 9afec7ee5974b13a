"""Which pages are only the shell of an application, as the tools of their frameworks write them."""

from __future__ import annotations

import time

import pytest

from paise2nb.content.extract.shells import is_shell

HEAD = "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>App</title>{}</head>"
SCRIPT = "<script type='module' crossorigin src='/assets/index-4f3a.js'></script>"
ANALYTICS = "<script async src='https://analytics.example/js?id=1'></script>"
WORDS = "Words that a server has written into the page, so that all can read them. " * 4

SHELLS = {
    "React, by Vite": HEAD.format(SCRIPT) + "<body><div id='root'></div></body>",
    "React, by its old tool": HEAD.format("<script defer src='/static/js/main.js'></script>")
    + "<body><noscript>You need to enable JavaScript to run this app.</noscript>"
    "<div id='root'></div></body>",
    "Vue": HEAD.format(SCRIPT)
    + "<body><noscript><strong>We're sorry but shop doesn't work properly without JavaScript "
    "enabled. Please enable it to continue.</strong></noscript><div id='app'></div></body>",
    "Vue, with a template in the page": HEAD.format(SCRIPT)
    + "<body><div id='app'><h1>{{ title }}</h1><p>{{ text | upper }}</p></div></body>",
    "Angular": HEAD.format("<base href='/'>")
    + "<body><app-root></app-root><script src='main.js' type='module'></script></body>",
    "Angular, while it loads": HEAD.format("")
    + "<body><my-app>Loading...</my-app><script src='main.js'></script></body>",
    "AngularJS": HEAD.format(SCRIPT)
    + "<body><div ng-app='shop' ng-controller='Main'><li>{{item.name}}</li></div></body>",
    "Next": HEAD.format("<script src='/_next/static/chunks/main.js' defer></script>")
    + "<body><div id='__next'></div>"
    "<script id='__NEXT_DATA__' type='application/json'>{\"props\":{}}</script></body>",
    "Nuxt": HEAD.format(SCRIPT) + "<body><div id='__nuxt'></div></body>",
    "Svelte": HEAD.format(SCRIPT) + "<body><div id='svelte'></div></body>",
    "SvelteKit": HEAD.format("")
    + "<body data-sveltekit-preload-data='hover'><div style='display: contents'><script>"
    "Promise.all([import('/app/start.js')]).then(([kit]) => kit.start(app));</script></div></body>",
    "Gatsby": HEAD.format(SCRIPT) + "<body><div id='___gatsby'></div></body>",
    "a page that waits": HEAD.format(SCRIPT)
    + "<body><div id='app-container'><p>Loading, please wait …</p></div></body>",
    "a page that writes itself": HEAD.format("<script>document.write(text)</script>"),
    "with a footer": HEAD.format(SCRIPT)
    + "<body><div id='root'></div><footer>© 2026 Example Ltd. Imprint. Privacy.</footer></body>",
}
PAGES = {
    "a short page": HEAD.format("") + "<body><h1>It works!</h1></body>",
    "a short page with analytics": HEAD.format(ANALYTICS) + "<body><h1>It works!</h1></body>",
    "a short page with an empty element": HEAD.format(ANALYTICS)
    + "<body><p>Closed until May.</p><div id='cookie-banner'></div></body>",
    "an empty page without scripts": HEAD.format("") + "<body><div id='root'></div></body>",
    "an empty page with data only": HEAD.format("")
    + "<body><script type='application/ld+json'>{\"@type\": \"WebSite\"}</script></body>",
    "no page": "",
    "an article": HEAD.format(SCRIPT) + f"<body><article><p>{WORDS}</p></article></body>",
    "an article that React shows again": HEAD.format(SCRIPT)
    + f"<body><div id='root'><p>{WORDS}</p></div></body>",
    "a rendered page of Next": HEAD.format(SCRIPT)
    + f"<body><div id='__next'><main><p>{WORDS}</p></main></div></body>",
    "a short page that React shows again": HEAD.format(SCRIPT)
    + "<body><div id='root'><h1>Closed until May</h1></div></body>",
    "an article with a hint": HEAD.format(SCRIPT)
    + f"<body><noscript>Comments need JavaScript.</noscript><p>{WORDS}</p></body>",
    "a form": HEAD.format(ANALYTICS)
    + "<body><main id='main'><form>Name <input></form></main></body>",
    "a note with a place for dialogs": HEAD.format(SCRIPT)
    + "<body><h1>The pool is closed today.</h1><div id='modal-root'></div></body>",
    "a note with comments": HEAD.format(SCRIPT) + "<body><h1>The pool is closed today.</h1>"
    "<noscript>Please enable JavaScript to view the comments.</noscript></body>",
    "a main element": HEAD.format(ANALYTICS) + "<body><header>News</header><main></main></body>",
}  # fmt: skip


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_of_an_application_is_known(name: str) -> None:
    assert is_shell(SHELLS[name])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_a_text_of_its_own_is_none(name: str) -> None:
    assert not is_shell(PAGES[name])


@pytest.mark.parametrize(
    "body",
    ["<div id=root>" * 200 + "word" + "<b></b>" * 20_000, "{{" * 500_000, "[[" * 500_000],
    ids=["nested", "braces", "brackets"],
)
def test_a_hostile_page_takes_no_long_time(body: str) -> None:
    began = time.process_time()
    assert not is_shell(f"<html><body><script>x</script>{body}")
    assert time.process_time() - began < 5
