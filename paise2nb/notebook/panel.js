// Draws the panel from the state that the kernel sends, and asks the kernel for what is opened.
//
// What a job says never becomes HTML: `h` makes elements, and texts are set as text. Elements stay
// while their rows do, so what is open, selected or focused stays so.

// The states in the order of the bars: what is done, what goes on, what waits.
const SIGNS = {
  stored: "✓", unchanged: "=", skipped: "–", failed: "✗", cancelled: "⊘",
  running: "▶", retrying: "↻", scheduled: "◷", queued: "○",
};
const OTHER_SIGNS = { completed: "✓", released: "⊘", crashed: "✗", timeout: "✗", memory: "✗" };
const SILENT_SECONDS = 3; // without a heartbeat
const HERE_SECONDS = 10; // between two messages that the panel is shown
const CONFIRM_SECONDS = 5;
const WINDOW = 50; // rows of failures, as the kernel sends them
const PAGE_ROWS = 20;
const PAGES_SECONDS = 2; // between two readings of the pages, while they change
const PACE_SECONDS = 5;
const SORTS = {
  "newest first": "newest", "oldest first": "oldest", "by host": "host", "by title": "title",
  "by state": "state", "longest first": "duration",
};
const RANGES = { "15 min": 900, "1 h": 3600, "1 d": 86400 };

// Elements -----------------------------------------------------------------------------------

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else set(node, name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function set(node, name, value) {
  const text = value === true ? "" : String(value);
  if (value === false || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

// An element that does not change keeps what is selected in it.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(node, shown) {
  node.hidden = !shown;
}

let ids = 0;
function newId() {
  ids += 1;
  return `paise2-${ids}`;
}

function iconOf(state) {
  const sign = SIGNS[state] ?? OTHER_SIGNS[state] ?? "·";
  return h("span", { class: "sign", "data-state": state, "aria-hidden": "true" }, sign);
}

function stateText(state) {
  return h("span", { class: "state", "data-state": state }, iconOf(state), ` ${state}`);
}

function target(row, text = row.short) {
  if (!row.url) return h("span", { class: "target", title: row.text }, text);
  const safe = { href: row.url, target: "_blank", rel: "noopener noreferrer", title: row.url };
  return h("a", { class: "target", ...safe }, text);
}

// A button that shows and hides an element.
function opener(name, body, opened) {
  const button = h("button", { class: "toggle", type: "button", "aria-controls": body.id, click: () => button.open(body.hidden) }, name);
  button.open = (open) => {
    show(body, open);
    set(button, "aria-expanded", String(open));
    if (open) opened();
  };
  show(body, false);
  set(button, "aria-expanded", "false");
  return button;
}

function table(label, names, body) {
  const head = h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name))));
  return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label }, h("table", {}, head, body));
}

function choice(label, names, choose) {
  const options = names.map((name) => h("option", { value: name }, name));
  const node = h("select", { "aria-label": label, change: () => choose(node.value) }, ...options);
  return node;
}

// Words --------------------------------------------------------------------------------------

const count = (number) => number.toLocaleString("en-US");
const amount = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const facts = (...texts) => texts.filter(Boolean).join(" · ");
const more = (number) => (number > 0 ? `and ${count(number)} more` : "");
const sum = (numbers) => Object.values(numbers).reduce((total, number) => total + number, 0);

function duration(seconds) {
  const left = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [left / 86400, (left / 3600) % 24, (left / 60) % 60].map(Math.floor);
  const two = (number) => String(number).padStart(2, "0");
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours}:${two(minutes)}:${two(left % 60)}` : `${minutes}:${two(left % 60)}`;
}

function rateText(perMinute, withJobs) {
  if (perMinute < 0.5) return "";
  const [rate, unit] = perMinute < 120 ? [perMinute, "min"] : [perMinute / 60, "s"];
  const number = Math.round(rate);
  return `${withJobs ? `${count(number)} pages and jobs` : amount(number, "page")}/${unit}`;
}

function countsText(counts) {
  const states = Object.keys({ ...SIGNS, ...OTHER_SIGNS }).filter((state) => counts[state]);
  return states.map((state) => `${count(counts[state])} ${state}`).join(", ");
}

// Lists --------------------------------------------------------------------------------------

// Keeps a row for each entry. While the list is held, rows stay where they are: those of entries
// that are gone are marked, and new ones are counted.
class Rows {
  constructor(container, keyOf, make) {
    Object.assign(this, { container, keyOf, make, fresh: 0 });
  }

  sync(entries, held) {
    const known = new Map([...this.container.children].map((node) => [node.key, node]));
    const keys = entries.map(this.keyOf);
    const nodes = entries.map((entry, index) => known.get(keys[index]) ?? (held ? null : this.made(entry, keys[index])));
    this.fresh = nodes.filter((node) => node === null).length;
    entries.forEach((entry, index) => nodes[index]?.update(entry));
    if (held) {
      for (const [key, node] of known) set(node, "data-gone", !keys.includes(key));
    } else if (nodes.some((node, index) => node !== this.container.children[index])
               || nodes.length !== this.container.children.length) {
      this.container.replaceChildren(...nodes);
    }
  }

  made(entry, key) {
    const node = this.make(entry);
    node.key = key;
    node.update ??= () => {};
    return node;
  }
}

// A part with a title that opens and closes it.
class Section {
  constructor(panel, title, open) {
    Object.assign(this, { panel, title, released: false });
    this.body = h("div", { class: "body", id: newId() });
    this.toggle = opener(title, this.body, () => this.opened?.());
    this.fresh = h("button", { class: "fresh", type: "button", hidden: true, click: () => this.release() });
    this.tools = h("span", { class: "tools" });
    const bar = h("div", { class: "bar" }, h("h3", {}, this.toggle), this.fresh, this.tools);
    this.node = h("section", {}, bar, this.body);
    this.toggle.open(open);
  }

  get isOpen() {
    return !this.body.hidden;
  }

  get busy() {
    return this.body.matches(":hover, :focus-within");
  }

  release() {
    this.released = true;
    this.panel.update();
    this.released = false;
  }

  // Shows the number of all entries, and hides the part if there are none.
  count(number, held) {
    say(this.toggle, `${this.title} (${count(number)})`);
    if (!held || number) show(this.node, number !== 0);
  }

  list(rows, entries, held) {
    rows.sync(entries, held && !this.released);
    say(this.fresh, `${count(rows.fresh)} new`);
    show(this.fresh, rows.fresh > 0);
  }
}

// The kernel ---------------------------------------------------------------------------------

// Sends commands, and returns what the kernel answers.
class Kernel {
  constructor(model) {
    Object.assign(this, { model, calls: new Map() });
  }

  ask(name, values = {}) {
    const call = Math.random().toString(36).slice(2);
    return new Promise((resolve, reject) => {
      this.calls.set(call, { resolve, reject });
      this.model.send({ call, do: name, ...values });
    });
  }

  receive({ call, result, error }) {
    const promise = this.calls.get(call); // none: another view has asked
    this.calls.delete(call);
    if (error !== undefined) promise?.reject(new Error(error));
    else promise?.resolve(result);
  }
}

// A button that sends a command, and waits for the answer.
function action(panel, name, run, attributes = {}) {
  const button = h("button", { type: "button", ...attributes, click: async () => {
    button.waits = true;
    button.disabled = true;
    try {
      await run(button);
    } catch (error) {
      panel.complain(error);
    }
    button.waits = false;
    button.disabled = false;
    panel.update();
  } }, name);
  return button;
}

function enable(button, enabled) {
  button.disabled = button.waits || !enabled;
}

// A button that has to be pressed a second time.
function confirmed(panel, run) {
  let until = 0;
  const button = action(panel, "", async () => {
    if (Date.now() < until) {
      until = 0;
      await run();
    } else {
      until = Date.now() + CONFIRM_SECONDS * 1000;
    }
  });
  button.call = (name) => {
    const asks = Date.now() < until;
    say(button, asks ? `Really ${name.toLowerCase()}?` : name);
    set(button, "class", asks ? "warning" : "");
  };
  return button;
}

// The parts ----------------------------------------------------------------------------------

function workText(state) {
  const waits = (name) => (state.pages[name] ?? 0) + (state.others[name] ?? 0);
  if (state.paused) return "paused";
  if (state.all_running) return "running";
  // A page also runs while one of its parts waits for a worker.
  if (waits("queued") + waits("running")) return state.all_workers && state.hosts.length ? "waiting for hosts" : "waiting";
  return waits("retrying") ? "waiting for retries" : "idle";
}

function header(panel) {
  const [profile, live, clock] = [h("strong"), h("span", { class: "live" }), h("span", { class: "updated" })];
  const node = h("div", { class: "header" }, h("span", { class: "name" }, "paise2 · ", profile), live, clock);
  const update = (state) => {
    const work = workText(state);
    const workers = state.immediate ? "jobs run in this kernel" : amount(state.all_workers, "worker");
    say(profile, state.profile);
    set(profile, "title", state.data_dir);
    set(live, "data-live", panel.alive ? work.split(" ")[0] : "gone");
    say(live, panel.alive ? `${work} · ${workers}` : "not connected");
    say(clock, `updated ${panel.clock(panel.beat)}`);
    set(clock, "title", state.zone);
  };
  return { node, update };
}

function notice(panel) {
  const node = h("div", { class: "notice", role: "status", hidden: true });
  const update = () => {
    const since = panel.clock(panel.beat);
    const restarted = `kernel restarted: run this cell again. This is how it was at ${since}.`;
    const silent = `no sign of the kernel since ${since}. If it was restarted, run this cell again.`;
    show(node, !panel.alive);
    say(node, panel.alive ? "" : panel.restarted ? restarted : silent);
  };
  return { node, update };
}

function bar() {
  const label = h("span", { class: "tag" });
  const strip = h("span", { class: "strip", role: "img" });
  const numbers = h("span", { class: "numbers" });
  const node = h("div", { class: "gauge" }, label, strip, numbers);
  const parts = Object.keys(SIGNS).map((state) => h("span", { "data-state": state }));
  strip.append(...parts);
  node.update = ({ tag, pages }) => {
    const total = sum(pages);
    say(label, tag);
    set(label, "title", tag);
    for (const part of parts) {
      part.style.width = `${(100 * (pages[part.dataset.state] ?? 0)) / (total || 1)}%`;
    }
    set(strip, "aria-label", `${tag}: ${countsText(pages) || "no pages"}`);
    const done = total - ["running", "retrying", "scheduled", "queued"]
      .reduce((left, state) => left + (pages[state] ?? 0), 0);
    say(numbers, `${count(done)} of ${count(total)}`);
    set(numbers, "title", countsText(pages));
  };
  return node;
}

// The only element that counts the pages in a state.
function counter(panel, state) {
  const number = h("span", { class: "paise2-count", "data-state": state });
  const open = { class: "plain", type: "button", title: `Show the ${state} pages`, click: () => panel.showPages(state) };
  const node = h("li", {}, h("button", open, iconOf(state), number, h("span", { class: "word" }, ` ${state}`)));
  node.update = (value) => {
    set(number, "data-value", value);
    say(number, count(value));
    set(node, "class", value ? "" : "zero");
  };
  return node;
}

function bars(panel) {
  const counters = Object.fromEntries(Object.keys(SIGNS).map((state) => [state, counter(panel, state)]));
  const [whole, tags, rest] = [bar(), h("div"), h("div", { class: "dim" })];
  const [summary, hosts] = [h("div", { class: "facts" }), h("div", { class: "facts hosts" })];
  const rows = new Rows(tags, (_, index) => index, bar); // two long tags may look the same
  const list = h("ul", { class: "counts", "aria-label": "pages by state" }, ...Object.values(counters));
  const node = h("div", { class: "bars" }, whole, list, summary, hosts, tags, rest);
  const update = (state) => {
    whole.update({ tag: "all pages", pages: state.pages });
    for (const [name, value] of Object.entries(state.pages)) counters[name].update(value);
    rows.sync(state.tags, false);
    say(rest, state.more_tags ? `and ${amount(state.more_tags, "more tag")}` : "");
    const waited = state.oldest ? panel.now() - state.oldest : 0;
    const others = countsText(state.others);
    say(summary, facts(
      rateText(state.rate, others), state.left && `left: ${state.left}`, amount(state.items, "item"),
      waited > 1 && `longest wait ${duration(waited)}`, others && `other jobs: ${others}`,
    ));
    say(hosts, facts(...state.hosts.map((host) => `${host.host}: ${count(host.waiting)} waiting, ${host.why}`)));
    show(hosts, state.hosts.length);
  };
  return { node, update };
}

function problems() {
  const node = h("div", { class: "problems", role: "status" });
  const rows = new Rows(node, (text) => text, (text) => h("div", { class: "problem" }, text));
  return { node, update: (state) => rows.sync(state.problems, false) };
}

function controls(panel) {
  let asked = null; // Enter is followed by a change, in some browsers at once
  const scale = () => {
    if (!panel.state.scales || size() === (asked ?? panel.state.concurrency)) return;
    asked = size();
    panel.kernel.ask("scale", { concurrency: asked }).catch(panel.complain).finally(() => { asked = null; });
  };
  const key = (event) => event.key === "Enter" && scale(); // JupyterLab takes it from the browser
  const number = h("input", { type: "number", min: 1, max: 1024, step: 1, change: scale, keydown: key });
  const size = () => Math.min(Math.max(Math.round(Number(number.value)) || 1, 1), 1024);
  const start = action(panel, "Start workers", () => panel.kernel.ask("start", { concurrency: size() }));
  const stop = action(panel, "Stop workers", () => panel.kernel.ask("stop"), { title: "Running jobs finish first" });
  const pause = action(panel, "Pause", () => panel.kernel.ask(panel.state.paused ? "resume" : "pause"));
  const retry = action(panel, "Retry failed", () => panel.kernel.ask("retry_failed"), { title: "Retry the failed pages that a retry can help" });
  const label = h("label", { title: "Processes of the pool default; a change scales running workers" }, "Concurrency ", number);
  const message = h("span", { class: "message", role: "status" });
  const node = h("div", { class: "controls" }, start, stop, pause, label, retry, message);
  const update = (state) => {
    const moving = /(starting|stopping|scaling) workers/.test(state.action);
    enable(start, !moving);
    enable(stop, !moving && state.all_workers);
    set(start, "class", state.all_workers ? "" : "primary");
    say(pause, state.paused ? "Resume" : "Pause");
    set(pause, "title", state.paused ? "Start jobs again" : "Start no more jobs; running jobs go on");
    enable(retry, state.groups.length);
    if (!number.matches(":focus")) number.value = state.concurrency;
    say(message, state.action || state.message);
    set(message, "title", message.textContent);
  };
  return { node, update };
}

// A box to paste URLs, and one to search; both show their results below.
function boxes(panel) {
  const said = h("div", { class: "said", role: "status" });
  const urls = h("textarea", { rows: 2, "aria-label": "URLs", placeholder: "Paste URLs, one on a line" });
  const tag = h("input", { type: "text", "aria-label": "Tag", placeholder: "tag", size: 12 });
  const add = action(panel, "Fetch", async () => {
    const text = urls.value;
    const answer = await panel.kernel.ask("enqueue", { text, tag: tag.value, start: panel.first });
    if (urls.value === text) urls.value = "";
    say(said, answer);
  }, { class: "primary" });
  const paste = h("div", { class: "paste" }, urls, tag, add);
  const results = h("ol", { class: "results" });
  const words = h("input", { type: "search", "aria-label": "Search", placeholder: "Search the stored pages" });
  const find = async () => {
    const found = words.value.trim() ? await panel.kernel.ask("search", { words: words.value }) : [];
    results.replaceChildren(...found.map(result));
    say(said, words.value.trim() && !found.length ? `no item contains ${words.value}` : "");
  };
  const button = action(panel, "Search", find);
  const key = (event) => event.key === "Enter" && button.click();
  const search = h("div", { class: "search", role: "search", keydown: key, search: () => button.click() }, words, button);
  panel.complain = (error) => say(said, error.message);
  const node = h("div", { class: "boxes" }, h("div", { class: "pair" }, paste, search), said, results);
  return { node, update: () => [search, tag].forEach((part) => show(part, !panel.first)) };
}

function result(row) {
  const pieces = row.snippet.map((piece, index) => (index % 2 ? h("mark", {}, piece) : piece));
  return h("li", {}, target(row, row.title), h("div", { class: "snippet" }, ...pieces), h("div", { class: "dim" }, row.short));
}

// What failed --------------------------------------------------------------------------------

function needsYou(panel) {
  const section = new Section(panel, "Needs you", true);
  const list = h("div");
  const rest = h("div", { class: "dim" });
  section.body.append(list, rest);
  const rows = new Rows(list, (group) => group.key, (group) => failureGroup(panel, group));
  section.update = (state, held) => {
    section.count(state.failures, held);
    section.list(rows, state.groups, held);
    say(rest, more(state.more_groups));
  };
  return section;
}

function failureGroup(panel, group) {
  const list = group.recurs ? way(panel, group.id) : failureList(panel, group);
  let listed = ""; // the group when its list was loaded
  const load = () => {
    listed = JSON.stringify(group);
    list.load();
  };
  const body = h("div", { class: "failures", id: newId() }, list.node);
  const name = h("span", { class: "bad" });
  const toggle = opener(name, body, load);
  const [advice, command] = [h("span", { class: "advice" }), h("code")];
  const retryAll = confirmed(panel, () => panel.kernel.ask("retry_group", { key: group.key }));
  const retryOne = action(panel, "Retry", () => panel.kernel.ask("retry_group", { key: group.key }));
  const csv = action(panel, "Export CSV", () => exportCsv(panel, group));
  const node = h("div", { class: "group" },
    h("div", { class: "line" }, toggle, h("span", { class: "tools" }, csv, retryAll, retryOne)),
    h("div", { class: "help" }, advice, " ", command), body);
  node.update = (now) => {
    group = now;
    if (!body.hidden && listed !== JSON.stringify(group) && !node.matches(":hover, :focus-within")) load();
    say(name, `${group.recurs ? "" : `${count(group.jobs)} × `}${group.name}`);
    say(advice, group.advice);
    say(command, group.command);
    show(csv, !group.recurs);
    show(retryOne, group.retry && group.jobs === 1);
    show(retryAll, group.retry && group.jobs > 1);
    retryAll.call(`Retry all ${count(group.jobs)}`);
    list.update?.(group);
  };
  return node;
}

// Every job of a group, in windows.
function failureList(panel, group) {
  const chosen = new Set();
  const list = h("div", { class: "rows" });
  let entries = [];
  const load = async (further = false) => {
    const rows = await panel.kernel.ask("failures", { key: group.key, offset: further ? entries.length : 0 });
    // What has failed meanwhile has moved the rows.
    const known = new Set(further ? entries.map((row) => row.id) : []);
    entries = [...(further ? entries : []), ...rows.filter((row) => !known.has(row.id))];
    for (const id of chosen) if (!entries.some((row) => row.id === id)) chosen.delete(id);
    synced.sync(entries, false);
    update(group);
  };
  const next = action(panel, "Show more", () => load(true));
  const selected = action(panel, "Retry selected", async () => {
    await panel.kernel.ask("retry", { ids: [...chosen] });
    chosen.clear();
    await load();
  });
  const choose = (id, on) => {
    if (on) chosen.add(id);
    else chosen.delete(id);
    update(group);
  };
  const synced = new Rows(list, (row) => row.id, (row) => failureRow(panel, row, () => group, choose));
  const update = (now) => {
    group = now;
    show(next, group.jobs > entries.length && entries.length >= WINDOW);
    show(selected, chosen.size);
    say(selected, `Retry selected (${count(chosen.size)})`);
    [...list.children].forEach((node) => node.refresh());
  };
  return { node: h("div", {}, list, next, selected), load: () => load().catch(panel.complain), update };
}

function failureRow(panel, row, group, choose) {
  const box = h("input", { type: "checkbox", "aria-label": `Select ${row.text}`, change: () => choose(row.id, box.checked) });
  const retry = action(panel, "Retry", () => panel.kernel.ask("retry", { ids: [row.id] }), { "aria-label": `Retry ${row.text}` });
  const details = way(panel, row.id);
  const [reason, attempts] = [h("div", { class: "reason" }), opener("", details.node, details.load)];
  const node = h("div", { class: "row" },
    h("div", { class: "line" }, box, target(row), attempts, retry), reason, details.node);
  node.refresh = () => [box, retry].forEach((part) => show(part, group().retry));
  node.update = (now) => {
    say(reason, now.error);
    show(reason, now.error !== group().name);
    say(attempts, facts(amount(now.attempt, "attempt"), panel.clock(now.time)));
  };
  node.refresh();
  return node;
}

// The way of a page or a job: its executions, tracebacks, and what it stored.
function way(panel, id) {
  const node = h("div", { class: "way", id: newId() });
  const load = async () => {
    const found = await panel.kernel.ask("page", { id });
    const runs = found.runs.map((run) => h("tr", {},
      h("td", {}, run.task), h("td", {}, stateText(run.outcome)), h("td", { class: "time" }, run.started),
      h("td", { class: "number" }, run.took), h("td", { class: "reason" }, run.message)));
    const steps = table("executions", ["step", "outcome", "started", "took", "message"], h("tbody", {}, ...runs));
    const tracebacks = found.tracebacks.map(([name, text]) => h("pre", { tabindex: 0, "aria-label": `traceback of ${name}` }, text));
    node.replaceChildren(
      h("div", { class: "whole" }, target(found, found.text), " ", h("code", {}, found.command)),
      steps, ...tracebacks, ...found.items.map(preview));
  };
  return { node, load: () => load().catch(panel.complain) };
}

function preview(item) {
  const words = item.words ? ` · ${amount(item.words, "word")}` : "";
  return h("article", {}, h("div", { class: "dim" }, `item ${item.id}${words}`),
    h("h4", {}, item.title), h("pre", { tabindex: 0, "aria-label": "stored text" }, item.text));
}

async function exportCsv(panel, group) {
  const text = await panel.kernel.ask("failures_csv", { key: group.key });
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  h("a", { href: url, download: `${group.name.replace(/\W+/g, "-")}.csv` }).click();
  URL.revokeObjectURL(url);
}

// What waits and what runs -------------------------------------------------------------------

function countdown(panel, due) {
  const left = due - panel.now();
  return left >= 1 ? `in ${duration(left)}` : "now";
}

function retrying(panel) {
  return jobList(panel, "Retrying", true, (state) => [state.retries, state.retrying], {
    when: (row) => (row.waits_for ? `waits for ${row.waits_for}` : countdown(panel, row.due)),
    tell: (row) => facts(row.attempt, `job ${row.id}: ${row.task}`),
    now: "Retry now",
  });
}

function scheduled(panel) {
  return jobList(panel, "Scheduled", false, (state) => [state.later, state.scheduled], {
    when: (row) => `${panel.clock(row.due)}, ${countdown(panel, row.due)}`,
    tell: (row) => facts(`job ${row.id}: ${row.task}`, row.every),
    now: "Run now",
  });
}

function running(panel) {
  return jobList(panel, "Running jobs", false, (state) => [state.running, state.all_running], {
    when: (row) => duration(panel.now() - row.since),
    tell: (row) => facts(`job ${row.id}: ${row.task}`, row.progress, row.pid && `pid ${row.pid}`),
  });
}

// A list of the next jobs, with the number of all.
function jobList(panel, title, open, read, { when, tell, now }) {
  const section = new Section(panel, title, open);
  const [list, rest] = [h("div", { class: "rows" }), h("div", { class: "dim" })];
  const rows = new Rows(list, (row) => row.id, (row) => {
    const [time, about, reason] = [h("span", { class: now ? "soon" : "busy" }), h("span", { class: "dim" }), h("div", { class: "reason" })];
    const run = action(panel, now, () => panel.kernel.ask("retry", { ids: [row.id] }));
    const cancel = confirmed(panel, () => panel.kernel.ask("cancel", { id: row.id }));
    show(run, now);
    const node = h("div", { class: "row entry" }, h("div", { class: "line" }, time, target(row), about, run, cancel), reason);
    node.update = (entry) => {
      row = entry;
      say(about, tell(row));
      say(reason, row.error ?? "");
      node.tick();
    };
    node.tick = () => {
      say(time, when(row));
      cancel.call("Cancel");
    };
    return node;
  });
  section.body.append(list, rest);
  section.update = (state, held) => {
    const [entries, number] = read(state);
    section.count(number, held);
    section.list(rows, entries, held);
    say(rest, more(number - entries.length));
  };
  section.tick = () => [...list.children].forEach((node) => node.tick());
  return section;
}

function workers(panel) {
  const section = new Section(panel, "Workers", false);
  const [body, rest] = [h("tbody"), h("div", { class: "dim" })];
  const names = ["machine", "pool", "pid", "state", "jobs", "heartbeat", "message"];
  const rows = new Rows(body, (row) => `${row.host} ${row.pid}`, () => {
    const cells = names.map((name) => h("td", { class: name === "pid" || name === "jobs" ? "number" : "" }));
    const node = h("tr", {}, ...cells);
    node.update = (row) => {
      const beat = row.heartbeat ? panel.clock(row.heartbeat) : "";
      const texts = [row.host, row.pool, row.pid, row.state, row.jobs, beat, row.error];
      cells.forEach((cell, index) => say(cell, String(texts[index])));
      set(cells[3], "data-state", row.state);
    };
    return node;
  });
  section.body.append(table("workers", names, body), rest);
  section.update = (state, held) => {
    section.count(state.all_workers, held);
    section.list(rows, state.workers, held);
    say(rest, more(state.all_workers - state.workers.length));
  };
  return section;
}

function log(panel) {
  const section = new Section(panel, "Log", false);
  const lines = h("pre", { tabindex: 0, "aria-label": "the workers' log" });
  section.body.append(lines);
  const load = async () => say(lines, (await panel.kernel.ask("log")).join("\n") || "the log is empty");
  section.opened = () => load().catch(panel.complain);
  section.update = () => {
    if (section.isOpen && !section.busy) section.opened();
  };
  return section;
}

// The pages -----------------------------------------------------------------------------------

// A table of which only a window is here, sorted and filtered by the kernel.
function pages(panel) {
  const section = new Section(panel, "Pages", true);
  const shown = { states: [], words: "", sort: "newest", offset: 0, limit: PAGE_ROWS };
  const load = (values) => {
    Object.assign(shown, { offset: 0 }, values);
    return refresh(true).catch(panel.complain);
  };
  const states = choice("State", ["all states", ...Object.keys(SIGNS)], (name) => load({ states: SIGNS[name] ? [name] : [] }));
  const sorts = choice("Sort", Object.keys(SORTS), (name) => load({ sort: SORTS[name] }));
  let typing;
  const words = h("input", { type: "search", "aria-label": "Filter", placeholder: "filter", input: () => {
    clearTimeout(typing);
    typing = setTimeout(() => load({ words: words.value }), 250);
  } });
  const list = h("div", { class: "rows pages" });
  const where = h("span", { class: "where" });
  const turn = (name, sign, step) => h("button", { type: "button", "aria-label": name, click: () => load({ offset: shown.offset + step }) }, sign);
  const [back, next] = [turn("previous pages", "‹", -PAGE_ROWS), turn("next pages", "›", PAGE_ROWS)];
  const rows = new Rows(list, (row) => row.id, (row) => pageRow(panel, row));
  section.tools.append(states, words, sorts, h("span", { class: "pager" }, where, back, next));
  section.body.append(list);
  let [total, busy, read, seen] = [0, false, 0, ""];
  const refresh = async (now) => {
    busy = true;
    read = Date.now();
    try {
      const found = await panel.kernel.ask("pages", shown);
      if (shown.offset && !found.rows.length) { // pages were removed
        await load({});
        return;
      }
      const held = !now && section.busy;
      rows.sync(found.rows, held);
      say(section.fresh, `${count(Math.max(found.total - total, rows.fresh))} new`);
      show(section.fresh, held && rows.fresh > 0);
      if (!held) [total] = [found.total];
      const last = shown.offset + found.rows.length;
      say(where, found.total ? `${count(shown.offset + 1)}–${count(last)} of ${count(found.total)}` : "none");
      enable(back, shown.offset > 0);
      enable(next, last < found.total);
    } finally {
      busy = false;
    }
  };
  section.release = () => load({});
  section.opened = () => load({});
  section.update = (state) => {
    show(section.node, sum(state.pages));
    const counts = JSON.stringify([state.pages, state.items, state.running.map((row) => row.id), state.retries, state.groups]);
    const due = counts !== seen && Date.now() - read >= PAGES_SECONDS * 1000;
    if (!section.isOpen || busy || !panel.alive || !due) return;
    seen = counts;
    refresh(false).catch(panel.complain);
  };
  panel.showPages = (state) => {
    states.value = state;
    if (!section.isOpen) section.toggle.open(true);
    load({ states: [state] });
    section.node.scrollIntoView({ block: "nearest" });
  };
  return section;
}

function pageRow(panel, row) {
  const details = way(panel, row.id);
  const [state, title] = [h("span", { class: "cell" }), opener("", details.node, details.load)];
  const [place, time, took] = [h("span", { class: "place" }), h("span", { class: "time" }), h("span", { class: "number" })];
  const node = h("div", { class: "row" }, h("div", { class: "page" }, state, title, place, time, took), details.node);
  node.update = (now) => {
    if (node.state !== now.state) {
      node.state = now.state;
      state.replaceChildren(stateText(now.state));
      if (!details.node.hidden) details.load();
    }
    say(title, now.name);
    set(title, "title", now.name);
    if (place.textContent !== now.place) place.replaceChildren(target(now, now.place));
    say(time, panel.clock(now.time));
    say(took, now.duration === null ? "" : spent(now.duration));
  };
  return node;
}

const spent = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);

// The pace ------------------------------------------------------------------------------------

function pace(panel) {
  const section = new Section(panel, "Pace", true);
  const plot = h("div", { class: "plot" });
  const said = h("span", { class: "said", role: "status" });
  let [range, read, data] = [RANGES["15 min"], 0, null];
  const ranges = choice("Range", Object.keys(RANGES), (name) => {
    range = RANGES[name];
    load().catch(panel.complain);
  });
  const legend = ["completed", "failed"].map((name) => h("span", { class: "key", "data-bar": name }, name));
  section.tools.append(said, ...legend, ranges);
  section.body.append(plot);
  const draw = () => data && plot.replaceChildren(drawing(panel, data, plot.clientWidth || 600, said));
  const load = async () => {
    read = Date.now();
    data = await panel.kernel.ask("pace", { seconds: range });
    draw();
  };
  const observer = new ResizeObserver(draw);
  observer.observe(plot);
  section.close = () => observer.disconnect();
  section.opened = () => load().catch(panel.complain);
  section.update = (state) => {
    show(section.node, sum(state.pages) + sum(state.others));
    const due = Date.now() - read >= Math.max(PACE_SECONDS, range / 200) * 1000;
    if (section.isOpen && panel.alive && due && !section.busy) section.opened();
  };
  return section;
}

// Bars over axes of time and number. The bar below the pointer, or chosen by arrow keys, is told.
function drawing(panel, data, width, said) {
  const [left, bottom, height] = [38, 18, 96];
  const most = niceNumber(Math.max(...data.completed.map((number, index) => number + data.failed[index])));
  const step = (width - left - 4) / data.completed.length;
  const y = (number) => 6 + (height - 6) * (1 - number / most);
  const node = svg("svg", { width, height: height + bottom, role: "img", tabindex: 0,
    "aria-label": `pace: ${count(sum(data.completed))} completed, ${count(sum(data.failed))} failed since ${panel.clock(data.start)}` });
  for (const number of [0, most / 2, most]) {
    node.append(svg("line", { x1: left, x2: width, y1: y(number), y2: y(number) }),
      svg("text", { x: left - 6, y: y(number) + 4, "text-anchor": "end" }, count(number)));
  }
  const ticks = Math.max(1, Math.min(6, Math.floor(width / 110)));
  for (let tick = 0; tick <= ticks; tick += 1) {
    const index = (data.completed.length * tick) / ticks;
    const anchor = tick === 0 ? "start" : tick === ticks ? "end" : "middle";
    const time = panel.local(data.start + index * data.step).slice(11, data.step < 60 ? 19 : 16);
    node.append(svg("text", { x: left + index * step, y: height + 14, "text-anchor": anchor }, time));
  }
  data.completed.forEach((completed, index) => {
    const [x, failed] = [left + index * step, data.failed[index]];
    const bar = (name, from, number) => number && node.append(svg("rect", { "data-bar": name, x,
      y: y(from + number), width: Math.max(step - 1, 1), height: Math.max(y(from) - y(from + number), 1) }));
    bar("completed", 0, completed);
    bar("failed", completed, failed);
  });
  const mark = svg("rect", { class: "mark", y: 0, height, width: step, x: -step });
  node.append(mark);
  let chosen = data.completed.length;
  const choose = (index) => {
    chosen = Math.min(Math.max(index, 0), data.completed.length - 1);
    mark.setAttribute("x", left + chosen * step);
    const [from, until] = [chosen, chosen + 1].map((number) => panel.clock(data.start + number * data.step));
    say(said, `${from}–${until}: ${count(data.completed[chosen])} completed, ${count(data.failed[chosen])} failed`);
  };
  node.addEventListener("pointermove", (event) => choose(Math.floor((event.offsetX - left) / step)));
  for (const event of ["pointerleave", "blur"]) {
    node.addEventListener(event, () => {
      if (node.matches(":hover, :focus")) return; // still chosen by the other means
      mark.setAttribute("x", -step);
      say(said, "");
    });
  }
  node.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) choose(chosen + move);
  });
  return node;
}

// The top of an axis: 2, 4, 10, 20, 40, 100, …
function niceNumber(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [2, 4, 10, 20].map((number) => number * power).find((number) => number >= most);
}

// The whole ----------------------------------------------------------------------------------

class Panel {
  constructor(model, el) {
    Object.assign(this, { model, el, kernel: new Kernel(model), heard: Date.now(), told: 0 });
    this.top = [header, notice, bars, problems, controls, boxes].map((part) => part(this));
    this.sections = [needsYou, retrying, running, pages, pace, scheduled, workers, log].map((part) => part(this));
    const nodes = [...this.top, ...this.sections].map((part) => part.node);
    this.fields = h("fieldset", {}, ...nodes);
    this.root = h("div", { class: "paise2-watch", role: "region", "aria-label": "paise2 panel", "data-lm-suppress-shortcuts": "true" }, this.fields);
    for (const event of ["pointerleave", "focusout"]) {
      this.fields.addEventListener(event, () => setTimeout(() => this.update()));
    }
    el.append(this.root);
    this.beatChanged();
    this.update();
  }

  get state() {
    return this.model.get("state");
  }

  get beat() {
    return this.model.get("beat");
  }

  // The kernel's clock, which may differ from the browser's.
  now() {
    return Date.now() / 1000 + this.offset;
  }

  // The kernel's local time, as in ISO 8601.
  local(seconds) {
    return new Date((seconds + this.state.utc_offset) * 1000).toISOString();
  }

  clock(seconds) {
    const [time, today] = [this.local(seconds), this.local(this.now())];
    return time.slice(0, 10) === today.slice(0, 10) ? time.slice(11, 19) : time.slice(0, 16).replace("T", " ");
  }

  beatChanged() {
    this.restarted = false;
    this.heard = Date.now();
    this.offset = this.beat - this.heard / 1000;
  }

  get alive() {
    return !this.restarted && Date.now() - this.heard < SILENT_SECONDS * 1000;
  }

  // Without any job, worker or item there is only one thing to do.
  get first() {
    const { pages, others, items, all_workers: all } = this.state;
    return !sum(pages) && !sum(others) && !items && !all;
  }

  tick() {
    // JupyterLab counts the views of a widget; others, such as marimo, do not.
    if (!this.model.get("_view_count") && Date.now() - this.told >= HERE_SECONDS * 1000) {
      this.told = Date.now();
      this.kernel.ask("here").catch(this.complain);
    }
    if (this.alive !== this.wasAlive) this.update();
    if (this.alive) this.sections.forEach((section) => section.tick?.());
  }

  update() {
    const state = this.state;
    this.wasAlive = this.alive;
    this.fields.disabled = !this.alive;
    if (!state.pages) { // it could not be read yet
      this.el.textContent = state.problems?.join(" ") ?? "";
      return;
    }
    if (!this.root.isConnected) this.el.replaceChildren(this.root);
    set(this.root, "data-first", this.first);
    this.top.forEach((part) => part.update(state));
    // Rows above the pointer or the focus would move it, too.
    const lowest = this.sections.findLastIndex((section) => section.busy);
    this.sections.forEach((section, index) => section.update(state, index <= lowest));
  }
}

function render({ model, el }) {
  const panel = new Panel(model, el);
  const listeners = {
    "msg:custom": (message) => panel.kernel.receive(message),
    "change:state": () => panel.update(),
    "change:beat": () => {
      panel.beatChanged();
      panel.update();
    },
    // JupyterLab says so when the kernel restarts. Should it have been something else, it beats on.
    comm_live_update: () => {
      panel.restarted = true;
      panel.update();
    },
  };
  Object.entries(listeners).forEach(([name, listener]) => model.on(name, listener));
  const timer = setInterval(() => panel.tick(), 500);
  return () => {
    clearInterval(timer);
    Object.entries(listeners).forEach(([name, listener]) => model.off(name, listener));
    panel.sections.forEach((section) => section.close?.());
    el.replaceChildren(); // JupyterLab keeps views that it has removed
  };
}

export default { render };
