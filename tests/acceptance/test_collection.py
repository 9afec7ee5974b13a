"""The collection: pages, files, feeds, sitemaps and folders become items that can be found."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb import App
from tests.acceptance.support import Answer, Place, Shell, Site, page

TIDES = page("The tide machine", "A machine made of pulleys adds up the moon and the sun.")
KNOTS = page("On knots", "A bowline holds, and it can be untied again.")


def outcome(jobs: Any) -> list[str]:
    """The errors' classes of jobs that failed."""
    return [job.error_class for job in jobs if job.state == "failed"]


# Fetching --------------------------------------------------------------------------------------


def test_a_page_becomes_an_item_that_is_found_by_its_words(here: App, site: Site) -> None:
    job = here.enqueue("fetch", site.add("/tides", TIDES), tag="water")
    assert [child.task for child in job.tree] == ["fetch", "extract", "store"]
    assert {child.state for child in job.tree} == {"completed"}
    [item] = job.items
    assert (item.title, item.tag, item.language) == ("The tide machine", "water", "en")
    assert item.url == site.url("/tides")
    assert item.mime_type == "text/html"
    assert "made of pulleys" in item.text
    [hit] = here.search("pulleys")
    assert (hit["id"], hit["title"]) == (item.id, "The tide machine")
    assert "pulleys" in hit["snippet"]
    assert here.item(item.id).to_dict()["text"] == item.text


def test_redirects_are_followed_and_a_loop_ends(here: App, site: Site) -> None:
    site.add("/tides", TIDES)
    moved = site.add("/old", Answer(b"", status=302, headers={"Location": "/tides"}))
    assert [item.title for item in here.enqueue("fetch", moved).items] == ["The tide machine"]
    loop = site.add("/loop", Answer(b"", status=301, headers={"Location": "/loop"}))
    job = here.enqueue("fetch", loop)
    assert job.state == "failed"
    assert site.visits["/loop"] <= 6


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_fails_at_once_and_its_error_names_the_status(
    here: App, site: Site, status: int
) -> None:
    url = site.add("/gone", Answer(b"No.", "text/plain", status))
    job = here.enqueue("fetch", url)
    assert (job.state, job.error_class, job.attempt) == ("failed", "http_4xx", 1)
    assert str(status) in job.error
    assert site.visits["/gone"] == 1


def test_a_server_that_fails_is_asked_again_until_it_answers(here: App, site: Site) -> None:
    busy = Answer(b"Busy.", "text/plain", 500)
    job = here.enqueue("fetch", site.add("/busy", busy, busy, Answer(TIDES)))
    assert job.state == "completed"
    assert [attempt["outcome"] for attempt in job.attempts] == ["failed", "failed", "completed"]
    assert job.attempts[0]["error_class"] == "http_5xx"
    assert "500" in job.attempts[0]["error"]
    assert len(here.items()) == 1


def test_a_server_that_never_answers_well_fails_the_job_after_its_attempts(
    here: App, site: Site
) -> None:
    job = here.enqueue("fetch", site.add("/down", Answer(b"", status=503)))
    assert (job.state, job.error_class) == ("failed", "http_5xx")
    assert job.attempt == job.max_attempts == site.visits["/down"]


def test_a_host_that_asks_for_a_pause_gets_it_and_the_job_goes_on(here: App, site: Site) -> None:
    wait = Answer(b"Slowly.", "text/plain", 429, {"Retry-After": "1"})
    job = here.enqueue("fetch", site.add("/tides", wait, Answer(TIDES)))
    job.wait(timeout=60)
    assert (job.state, site.visits["/tides"]) == ("completed", 2)
    assert job.attempts[0]["error_class"] == "throttled"
    assert job.attempts[0]["retry_in"] >= 1


def test_robots_are_obeyed_unless_the_settings_say_otherwise(place: Place, site: Site) -> None:
    site.add("/robots.txt", Answer(b"User-agent: *\nDisallow: /private\n", "text/plain"))
    private, public = site.add("/private", TIDES), site.add("/public", KNOTS)
    with paise2nb.open("test", place.data, {"fetch.robots": True}) as here:
        assert here.enqueue("fetch", public).state == "completed"
        assert here.enqueue("fetch", private).state == "failed"
        assert site.visits["/private"] == 0
    with paise2nb.open("test", place.data) as here:
        assert here.enqueue("fetch", private, force=True).state == "completed"


def test_private_addresses_are_fetched_only_where_the_settings_allow_it(
    place: Place, site: Site
) -> None:
    url = site.add("/tides", TIDES)
    with paise2nb.open("test", place.data, {"fetch.allow_private_addresses": False}) as here:
        job = here.enqueue("fetch", url)
        assert (job.state, site.visits) == ("failed", {})
        assert "127.0.0.1" in job.error


def test_a_body_that_is_too_large_fails_for_good(place: Place, site: Site) -> None:
    url = site.add("/large", Answer(b"x" * 5000, "text/plain"))
    with paise2nb.open("test", place.data, {"fetch.max_bytes": 2000}) as here:
        job = here.enqueue("fetch", url)
        assert (job.state, job.attempt) == ("failed", 1)
        assert len(here.items()) == 0


def test_nothing_that_can_not_be_reached_is_stored(here: App) -> None:
    with Site() as gone:
        url = gone.url("/tides")
    job = here.enqueue("fetch", url)
    assert (job.state, job.error_class) == ("failed", "connection")
    assert job.attempt == job.max_attempts


def test_what_no_extractor_reads_fails_and_says_its_type(here: App, site: Site) -> None:
    url = site.add("/odd", Answer(bytes(range(256)), "application/x-nobody"))
    job = here.enqueue("fetch", url)
    assert outcome(job.tree) == ["unsupported"]
    assert "application/x-nobody" in job.tree[1].error


def test_requests_carry_the_name_that_the_settings_give(place: Place, site: Site) -> None:
    url = site.add("/tides", TIDES)
    with paise2nb.open("test", place.data) as here:
        here.enqueue("fetch", url)
    with paise2nb.open("test", place.data, {"fetch.user_agent": "Reader/1"}) as here:
        here.enqueue("fetch", url, force=True)
    assert site.agents == [f"paise2nb/{paise2nb.__version__}", "Reader/1"]


def test_a_compressed_page_is_read(here: App, site: Site) -> None:
    packed = Answer(gzip.compress(TIDES), headers={"Content-Encoding": "gzip"})
    assert here.enqueue("fetch", site.add("/tides", packed)).items[0].title == "The tide machine"


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "utf-16"])
def test_a_page_is_read_in_the_charset_that_it_declares(
    here: App, site: Site, charset: str
) -> None:
    body = TIDES.decode().replace("machine", "Gezeitenprüfgerät").encode(charset)
    here.enqueue("fetch", site.add("/tides", Answer(body, f"text/html; charset={charset}")))
    assert len(here.search("Gezeitenprüfgerät")) == 1


def test_a_secret_in_a_url_is_not_shown(here: App, site: Site) -> None:
    job = here.enqueue("fetch", site.url("/gone?api_key=hunter2"))
    assert job.state == "failed"
    for form in (str(job), str(here.jobs()), str(here.status()), json.dumps(job.to_dict())):
        assert "hunter2" not in form


# What is known already -------------------------------------------------------------------------


def test_the_same_page_again_adds_nothing_until_it_is_forced(here: App, site: Site) -> None:
    url = site.add("/tides", TIDES)
    first = here.enqueue_many("fetch", [url])
    again = here.enqueue_many("fetch", [url])
    assert (first.new, again.new, again.fresh) == (1, 0, 1)
    assert again[0].id == first[0].id
    assert site.visits["/tides"] == 1
    forced = here.enqueue_many("fetch", [url], force=True)
    assert (forced.new, site.visits["/tides"], len(here.items())) == (1, 2, 1)


def test_a_page_that_is_older_than_the_settings_allow_is_fetched_again(
    place: Place, site: Site
) -> None:
    url = site.add("/tides", TIDES)
    with paise2nb.open("test", place.data, {"fetch.max_age": 0}) as here:
        here.enqueue("fetch", url)
        assert here.enqueue_many("fetch", [url]).new == 1
    assert site.visits["/tides"] == 2


def test_a_page_that_has_not_changed_is_not_stored_again(here: App, site: Site) -> None:
    url = site.add("/tides", Answer(TIDES, headers={"ETag": '"1"'}))
    here.enqueue("fetch", url)
    job = here.enqueue("fetch", url, force=True)
    assert (job.state, site.visits["/tides"]) == ("completed", 2)
    [item] = here.items()
    assert len(item.history()) == 1


def test_an_item_keeps_the_versions_it_had(here: App, site: Site) -> None:
    url = site.add("/tides", TIDES, page("The tide machine", "It was made of brass in 1872."))
    here.enqueue("fetch", url)
    here.enqueue("fetch", url, force=True)
    [item] = here.items()
    assert [row["version"] for row in item.history().to_dicts()] == [1, 2]
    changed = item.diff()
    assert any(line.startswith("-") and "pulleys" in line for line in str(changed).splitlines())
    assert any(line.startswith("+") and "brass" in line for line in str(changed).splitlines())
    assert (len(here.search("brass")), len(here.search("pulleys"))) == (1, 0)


def test_the_fragment_of_a_url_makes_no_other_page(here: App, site: Site) -> None:
    url = site.add("/tides", TIDES)
    here.enqueue("fetch", url)
    assert here.enqueue_many("fetch", [url + "#part"]).fresh == 1


# Files and folders -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("page.md", "# On knots\n\nA bowline holds.", "On knots"),
        ("page.html", KNOTS.decode(), "On knots"),
        ("page.txt", "A bowline holds.", None),
        ("data.csv", "knot,use\nbowline,holds\n", None),
        ("data.json", '{"knot": "bowline", "holds": true}', None),
    ],
)
def test_files_of_many_kinds_become_items(
    here: App, place: Place, name: str, content: str, title: str | None
) -> None:
    path = place.write(name, content)
    job = here.enqueue("fetch", str(path))
    [item] = job.items
    assert title is None or item.title == title
    assert [hit["id"] for hit in here.search("bowline")] == [item.id]
    assert here.enqueue_many("fetch", [path.as_uri()]).fresh == 1


def test_an_archive_becomes_the_documents_in_it(here: App, place: Place) -> None:
    path = place.root / "notes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("knots.md", "# On knots\n\nA bowline holds.")
        archive.writestr("tides.md", "# On tides\n\nThey come and go.")
    here.enqueue("fetch", str(path))
    assert {item.title for item in here.items()} == {"On knots", "On tides"}
    assert len(here.search("bowline")) == 1


def test_a_file_that_has_changed_is_fetched_again(here: App, place: Place) -> None:
    path = place.write("page.md", "# On knots\n\nA bowline holds.")
    here.enqueue("fetch", str(path))
    place.write("page.md", "# On knots\n\nA clove hitch slips now and then.")
    assert here.enqueue_many("fetch", [str(path)]).new == 1
    assert len(here.search("hitch")) == len(here.items()) == 1


def test_a_folder_becomes_its_files(place: Place, shell: Shell, app: App) -> None:
    for name in ("a.md", "b.txt", "deeper/c.md"):
        place.write(f"notes/{name}", f"All about {name}.")
    assert shell("--immediate", "enqueue", "folder", "notes").status == 0
    assert {Path(item.url).name for item in app.items()} == {"a.md", "b.txt"}
    words = ("enqueue", "folder", "notes", "--recursive", "--pattern", "*.md")
    assert shell("--immediate", *words).status == 0
    assert {Path(item.url).name for item in app.items()} == {"a.md", "b.txt", "c.md"}
    assert len(app.jobs(task="fetch")) == 3


# Sources ---------------------------------------------------------------------------------------

FEED = """<?xml version='1.0'?><rss version='2.0'><channel><title>News</title>
{}</channel></rss>"""
ENTRY = "<item><title>T</title><link>{}</link></item>"
SITEMAP = """<?xml version='1.0'?>
<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{}</urlset>"""


def feed(*links: str) -> Answer:
    entries = "".join(ENTRY.format(link) for link in links)
    return Answer(FEED.format(entries).encode(), "application/rss+xml")


def test_the_new_entries_of_a_feed_are_fetched_under_its_tag(here: App, site: Site) -> None:
    site.add("/tides", TIDES)
    site.add("/knots", KNOTS)
    url = site.add("/feed", feed("/tides"), feed("/tides", site.url("/knots")))
    assert here.enqueue("feed", url, tag="news").result()["new"] == 1
    assert here.enqueue("feed", url, tag="news").result()["new"] == 1
    assert {item.title for item in here.items(tag="news")} == {"The tide machine", "On knots"}
    assert site.visits["/tides"] == 1


def test_the_pages_of_a_sitemap_are_fetched(here: App, site: Site) -> None:
    locations = "".join(
        f"<url><loc>{site.add(path, body)}</loc></url>"
        for path, body in (("/tides", TIDES), ("/knots", KNOTS))
    )
    url = site.add("/sitemap.xml", Answer(SITEMAP.format(locations).encode(), "text/xml"))
    assert here.enqueue("sitemap", url).result()["new"] == 2
    assert len(here.items()) == 2


def test_links_are_followed_to_a_depth(site: Site, shell: Shell) -> None:
    body = b"<html><body><p>Words.</p><a href='/%s'>next</a></body></html>"
    start = site.add("/1", body % b"2")
    site.add("/2", body % b"3")
    site.add("/3", body % b"4")
    assert shell("--immediate", "enqueue", "links", start).status == 0
    assert (site.visits["/2"], site.visits["/3"]) == (1, 0)
    assert shell("--immediate", "enqueue", "links", start, "--depth", "2").status == 0
    assert (site.visits["/3"], site.visits["/4"]) == (1, 0)


@pytest.mark.parametrize("link", ["file:///etc/passwd", "/etc/passwd", "javascript:alert(1)"])
def test_a_feed_never_leads_to_a_file(here: App, site: Site, link: str) -> None:
    here.enqueue("feed", site.add("/feed", feed(link)))
    assert not any(job.args[0].startswith(("file:", "java")) for job in here.jobs(task="fetch"))
    assert len(here.items()) == 0


# Searching -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("machine", ["The tide machine"]),
        ("mach*", ["The tide machine"]),
        ('"pulleys adds"', ["The tide machine"]),
        ('"adds pulleys"', []),
        ("again bowline", ["On knots"]),
        ("tag:water", ["The tide machine"]),
        ("bowline tag:water", []),
        ("site:127.0.0.1 bowline", ["On knots"]),
        ("bowline before:2000-01-01", []),
        ("nothing-of-that-kind", []),
        *((odd, []) for odd in ('"', "'", "(", "*", "NEAR(", "-", "")),
    ],
)
def test_a_query_finds_what_it_asks_for_and_is_never_an_error(
    here: App, site: Site, query: str, titles: list[str]
) -> None:
    here.enqueue("fetch", site.add("/tides", TIDES), tag="water")
    here.enqueue("fetch", site.add("/knots", KNOTS))
    found = here.search(query)
    assert [hit["title"] for hit in found] == titles
    assert len(found.to_dicts()) == len(found)
    assert isinstance(str(found), str)


def test_a_search_gives_the_best_first_and_no_more_than_asked(here: App, place: Place) -> None:
    for number, times in enumerate((1, 9, 3)):
        place.write(f"{number}.txt", "knot " * times + "filler " * 50)
    here.enqueue_many("fetch", [str(place.work / f"{number}.txt") for number in range(3)])
    found = here.search("knot")
    assert [Path(hit["url"]).name for hit in found] == ["1.txt", "2.txt", "0.txt"]
    assert [hit["id"] for hit in here.search("knot", limit=1)] == [found[0]["id"]]


# Exporting and forgetting ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv", "all.parquet"])
def test_an_export_holds_every_item_with_its_text(
    here: App, site: Site, place: Place, name: str
) -> None:
    here.enqueue("fetch", site.add("/tides", TIDES), tag="water")
    here.enqueue("fetch", site.add("/knots", KNOTS))
    path = place.work / name
    here.export(path)
    rows = read(path)
    assert {row["title"] for row in rows} == {"The tide machine", "On knots"}
    assert all(row["text"] and row["url"] and len(row["sha256"]) == 64 for row in rows)
    with pytest.raises(paise2nb.PaiseError, match=name):
        here.export(path)
    here.export(path, tag="water", force=True)
    assert [row["title"] for row in read(path)] == ["The tide machine"]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_an_export_into_a_folder_is_a_markdown_file_for_each_item(
    here: App, site: Site, place: Place
) -> None:
    here.enqueue("fetch", site.add("/knots", KNOTS), tag="rope")
    here.export(place.work / "pages")
    [file] = (place.work / "pages").iterdir()
    assert file.suffix == ".md"
    head, body = file.read_text("utf-8").split("---\n")[1:]
    assert "On knots" in head
    assert "rope" in head
    assert "A bowline holds" in body


def test_a_reset_keeps_the_items_and_a_hard_one_does_not(here: App, site: Site) -> None:
    here.enqueue("fetch", site.add("/knots", KNOTS))
    later = here.enqueue("shout", "later", delay=600)
    counts = here.reset()
    assert (counts.jobs, counts.items, counts.cached > 0) == (3, 0, True)
    assert (len(here.items()), later.state) == (1, "scheduled")
    counts = here.reset(hard=True)
    assert (counts.jobs, counts.items) == (1, 1)
    assert (len(here.items()), len(here.jobs()), len(here.search("bowline"))) == (0, 0, 0)


def test_items_are_listed_newest_first_with_a_text_and_an_html_form(here: App, site: Site) -> None:
    here.enqueue("fetch", site.add("/tides", TIDES), tag="water")
    here.enqueue("fetch", site.add("/knots", KNOTS))
    items = here.items()
    assert [item.title for item in items] == ["On knots", "The tide machine"]
    assert [item.title for item in items[1:]] == ["The tide machine"]
    assert [item.title for item in here.items(limit=1)] == ["On knots"]
    assert list(items.to_frame()["title"]) == ["On knots", "The tide machine"]
    assert "text" not in items.to_dicts()[0]
    for form in (str(items), items._repr_html_(), str(items[0]), items[0]._repr_html_()):
        assert "On knots" in form


def test_what_a_page_says_can_not_become_part_of_the_html_form(here: App, site: Site) -> None:
    evil = page(
        "&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;img src=x onerror=alert(1)&gt; words."
    )
    here.enqueue("fetch", site.add("/evil", evil))
    for shown in (here.items(), here.items()[0], here.search("words"), here.jobs()):
        html = shown._repr_html_()
        assert "<script>alert" not in html
        assert "<img src=x" not in html
