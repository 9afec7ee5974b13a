"""The plugin in the pipeline, and checked by the rules for extractors."""

import pytest

from paise2nb.testing import Extracting, rules, run_all

CARDS = b"""BEGIN:VCARD
VERSION:4.0
FN:Ada Lovelace
ORG:Analytical Engine
NOTE:Wrote the first
  program.
END:VCARD
BEGIN:VCARD
VERSION:4.0
FN:Charles Babbage
EMAIL;TYPE=work:charles@example.org
END:VCARD
"""


@pytest.mark.parametrize("rule", rules("extractor"), ids=str)
def test_the_extractor_follows_the_rules(rule):
    rule.check(Extracting(CARDS, "text/vcard", "http://example.org/all.vcf"))


def test_each_contact_is_found_by_a_search(paise2_app, paise2_site):
    job = paise2_app.enqueue("fetch", paise2_site.add("/all.vcf", CARDS, "text/plain"))
    assert [item.title for item in job.items] == ["Ada Lovelace", "Charles Babbage"]
    assert [hit["title"] for hit in paise2_app.search("first program")] == ["Ada Lovelace"]
    assert paise2_site.requests == ["/all.vcf"]


@pytest.mark.parametrize("paise2_settings", [{"task_queue.sqlite.immediate": False}])
def test_a_task_runs_after_the_jobs_of_higher_priority(paise2_app, paise2_site):
    paise2_app.enqueue("fetch", paise2_site.add("/all.vcf", CARDS, "text/vcard"), priority=1)
    job = paise2_app.enqueue("introduce", "Charles")
    assert {each.state for each in run_all(paise2_app)} == {"completed"}
    assert job.result() == "FN: Charles Babbage\nEMAIL: charles@example.org"
