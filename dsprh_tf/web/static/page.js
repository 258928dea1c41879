// The address holds the query: ?text=, like= and values= (of a picture), which may stand together,
// less= of items that are not wanted, with find=, all=, any= and none=; code= is of old addresses. An
// entry of the history holds how far it was read: {key, shown, seed, y}.
import { drawBits } from "./bits.js";
import { card, content, element, shortened, tagList } from "./cards.js";
import { isPicked, pick, startPicks } from "./picks.js";
import { lessList, wordsToAdd } from "./query.js";
import { request } from "./server.js";
import { showTags, startTags, withTag } from "./tags.js";
import { closeView, openView, startView } from "./view.js";

const STEP = 24;
const TYPING_PAUSE = 30; // ms: letters that come faster are searched for together
const SETTLED = 600; // ms after a letter: what is not known by then is said
const KEPT = 20; // entries of the history whose results are kept
const LONG = 160; // letters of a query that is folded
const $ = (id) => document.getElementById(id);
const [words, results, status, hint, query] = ["words", "results", "status", "hint", "query"].map($);
let about = { bits: 0, max_upload: 0, max_top: STEP, generation: 0 };
let running = null; // the search that is under way
let chosen = null; // the picture that was searched by last: {values, url, name}
let timer = 0;
let settling = 0;
let typed = 0; // when the last letter was
let shown = { text: null, items: [], total: 0, code: null, generation: 0 }; // what is on the page
const kept = new Map(); // key of an entry -> {found, items}

const asked = () => new URLSearchParams(location.search);
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

function addressOf(parameters) {
  const text = parameters.toString();
  return text ? `/?${text}` : "/";
}

function address(changes) {
  const parameters = asked();
  parameters.delete("top"); // of old addresses
  for (const [name, value] of Object.entries(changes)) {
    if (value) parameters.set(name, value);
    else parameters.delete(name);
  }
  return addressOf(parameters);
}

const NOTHING = { text: "", like: "", code: "", values: "", less: "" };
const searchFor = (kind, value) => address({ ...NOTHING, [kind]: value });

// Whether a picture or an item is searched by; then words are added to it in a field of their own.
const byPicture = (parameters) => ["like", "code", "values"].some((kind) => parameters.get(kind));

function withLess(id) {
  const parameters = asked();
  if (!parameters.getAll("less").includes(id)) parameters.append("less", id);
  return addressOf(parameters);
}

function withoutLess(id) {
  const parameters = asked();
  const others = parameters.getAll("less").filter((other) => other !== id);
  parameters.delete("less");
  for (const other of others) parameters.append("less", other);
  return addressOf(parameters);
}

function note(changes) {
  history.replaceState({ ...history.state, ...changes }, "");
}

const newState = () => ({ key: `${Date.now()}-${Math.random()}`, shown: STEP, seed: null, y: 0 });

function go(url, { replace = false, typing = false } = {}) {
  if (url !== location.pathname + location.search) {
    if (!replace) note({ y: scrollY });
    history[replace ? "replaceState" : "pushState"](newState(), "", url);
  }
  return search({ typing });
}

function ask(offset, number, signal) {
  const parameters = asked();
  parameters.delete("top");
  parameters.set("offset", offset);
  parameters.set("count", number);
  if (history.state?.seed) parameters.set("seed", history.state.seed);
  return request(`/api/search?${parameters}`, { signal });
}

// What is on the page is of another query from now on.
const dim = (on) => document.body.classList.toggle("stale", on);

function quiet() {
  clearTimeout(timer);
  clearTimeout(settling);
  running?.abort();
}

async function search({ typing = false, back = false } = {}) {
  quiet();
  const mine = (running = new AbortController());
  const { key, shown: length, y } = history.state;
  showControls(typing);
  results.setAttribute("aria-busy", "true");
  dim(true);
  try {
    const before = back && kept.get(key);
    const found = before?.found ?? (await ask(0, Math.min(length, about.max_top), mine.signal));
    let items = before?.items ?? found.results;
    while (items.length < length && items.length < found.total) {
      const next = (await ask(items.length, about.max_top, mine.signal)).results;
      if (!next.length) break;
      items = joined(items, next);
    }
    note({ seed: found.seed });
    await show(found, items, typing, mine.signal);
    if (back) scrollTo({ top: y });
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  }
  if (running === mine) results.removeAttribute("aria-busy");
}

function joined(items, next) {
  const there = new Set(items.map(({ id }) => id));
  return [...items, ...next.filter(({ id }) => !there.has(id))];
}

function keep(found, items) {
  kept.delete(history.state.key);
  kept.set(history.state.key, { found, items });
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function fail(line) {
  dim(false);
  say(line, true);
  query.hidden = true;
  hint.hidden = true;
  shown = { ...shown, items: [], total: 0 };
  showRest();
  results.replaceChildren();
}

function say(line, isError = false) {
  status.textContent = line;
  status.classList.toggle("error", isError);
}

function showControls(typing) {
  const parameters = asked();
  if (!typing) words.value = byPicture(parameters) ? "" : parameters.get("text") ?? "";
  showTags(parameters);
  const find = parameters.get("find") ?? "";
  for (const radio of document.getElementsByName("find")) radio.checked = radio.value === find;
  document.title = [shortened(parameters.get("text") ?? "", 60), about.name].filter(Boolean).join(" – ");
}

// While somebody types, a word that is not known yet may become one: it is reported, and what was
// found before goes, once no letter came for a moment.
async function show(found, items, typing, signal) {
  const last = asked().get("text")?.split(/\s+/).at(-1);
  const unfinished = typing && found.unknown.some(({ word }) => word === last) ? last : null;
  if (unfinished !== null && !found.query) {
    await new Promise((resolve) => (settling = setTimeout(resolve, typed + SETTLED - Date.now())));
    if (signal.aborted) return;
  } else if (unfinished !== null) {
    settling = setTimeout(() => showHint(found), typed + SETTLED - Date.now());
  }
  render(found, items, found.query ? unfinished : null);
}

function render(found, items, unfinished = null) {
  dim(false);
  showHint(found, unfinished);
  showQuery(found);
  const code = found.query?.code ?? null;
  const { total, generation } = found;
  const text = byPicture(asked()) ? null : asked().get("text") ?? (found.query ? null : "");
  shown = { text, items, total, code, generation };
  results.replaceChildren(...items.map(cardOf));
  showRest();
  say(found.message ?? summary(found));
  $("notice").textContent = found.notice ?? "";
  $("notice").hidden = !found.notice;
  keep(found, items);
  if (found.generation !== about.generation) readAbout();
}

const cardOf = (item) =>
  card(item, {
    code: shown.code,
    bits: about.bits,
    like: searchFor("like", item.id),
    less: shown.code && withLess(item.id),
    picked: isPicked(item.id),
  });

function showRest() {
  const { items, total } = shown;
  const left = Math.min(STEP, total - items.length);
  $("more").hidden = left <= 0;
  $("more").textContent = `Show ${left} more`;
  $("place").textContent = total > STEP ? `${items.length.toLocaleString("en")} of ${total.toLocaleString("en")}` : "";
}

async function more({ focus = false } = {}) {
  const { items, generation } = shown;
  const mine = running;
  $("more").disabled = true;
  try {
    const found = await ask(items.length, STEP, mine.signal);
    if (mine.signal.aborted) return;
    note({ shown: items.length + STEP });
    if (found.generation !== generation) {
      await search(); // another index by now: all of it anew
    } else {
      const next = joined(items, found.results);
      const fresh = next.slice(items.length);
      shown = { ...shown, items: next, total: fresh.length ? found.total : items.length };
      results.append(...fresh.map(cardOf));
      keep({ ...kept.get(history.state.key).found, total: shown.total }, next);
    }
    showRest();
    if (focus) shotAt(items.length)?.focus(); // a keyboard goes on where it was
  } catch (error) {
    if (error.name !== "AbortError") $("place").textContent = error.message;
  } finally {
    $("more").disabled = false;
  }
}

function summary(found) {
  const items = count(found.total, "item", "items");
  if (!found.query) return `${items}, in random order`;
  const parameters = asked();
  const text = searched(found);
  const parts = [
    text && `for “${shortened(text, 60)}”`,
    parameters.get("like") && "like this one",
    (parameters.get("code") || parameters.get("values")) && "like your picture",
  ].filter(Boolean);
  const less = found.query.less?.length;
  const away = less ? `, not like ${count(less, "other", "others")}` : "";
  return `${items} ${parts.join(" and ")}${away}, nearest first`;
}

// The words of the query that were searched for.
function searched(found) {
  const text = asked().get("text") ?? "";
  const unknown = new Set(found.unknown.map(({ word }) => word));
  return unknown.size ? text.split(/\s+/).filter((word) => !unknown.has(word)).join(" ") : text;
}

function showHint(found, unfinished = null) {
  const text = asked().get("text") ?? "";
  const unknown = found.unknown.filter(({ word }) => word !== unfinished);
  hint.replaceChildren();
  hint.hidden = !unknown.length;
  for (const { word, near } of unknown) {
    const line = element("p", {}, `“${shortened(word, 40)}” is not a known word. `);
    if (near.length) line.append("Perhaps ");
    near.forEach((other, i) => {
      const better = text.split(/\s+/).map((part) => (part === word ? other : part)).join(" ");
      line.append(i ? ", " : "", element("a", { href: address({ text: better }), textContent: other }));
    });
    line.append(near.length ? "?" : "");
    hint.append(line);
  }
}

function folded(text) {
  const title = element("h2", { textContent: `“${text}”` });
  if (text.length <= LONG) return [title];
  title.className = "folded";
  const all = element("button", { type: "button", className: "unfold", textContent: "Show all of it", ariaExpanded: "false" });
  all.addEventListener("click", () => {
    const open = !title.classList.toggle("folded");
    all.ariaExpanded = String(open);
    all.textContent = open ? "Show less" : "Show all of it";
  });
  return [title, all];
}

function showQuery(found) {
  const asking = found.query;
  query.hidden = !asking;
  if (!asking) return query.replaceChildren();
  const about_it = element("div", { className: "about" });
  const { code, item, less } = asking;
  const parameters = asked();
  const text = parameters.get("text") ?? "";
  const pictures = [];
  if (item) {
    about_it.append(element("h2", { textContent: "More like this" }));
    pictures.push(content(item, "large"));
    for (const path of item.paths ?? (item.path ? [item.path] : [])) {
      about_it.append(element("p", { className: "path", textContent: path }));
    }
    if (item.tags.length) about_it.append(tagList(item.tags));
  } else if (byPicture(parameters)) {
    const values = parameters.get("values");
    const known = values && chosen?.values === values ? chosen : null;
    about_it.append(element("h2", { textContent: "Like your picture" }));
    if (known) {
      const label = `The picture ${known.name}`;
      pictures.push(element("img", { src: known.url, alt: label, className: "picture" }));
    }
    about_it.append(
      element("p", { className: "path", textContent: known?.name ?? "a picture that was uploaded" }),
    );
  } else {
    about_it.append(...folded(searched(found)));
  }
  if (byPicture(parameters)) about_it.append(wordsToAdd(text, (words) => go(address({ text: words }))));
  if (less) about_it.append(lessList(less, withoutLess));
  const cells = element("figure", { className: "code" }, drawBits(code));
  cells.append(element("figcaption", {}, `${about.bits} bits: its code. Below, `,
    element("b", { textContent: "tall cells" }), " are bits in which an item differs."));
  about_it.append(cells);
  query.replaceChildren(...pictures, about_it);
  query.classList.toggle("words", !byPicture(parameters));
}

async function searchByPicture(file) {
  if (!file) return;
  closeView();
  if (file.size > about.max_upload) {
    const megabytes = Math.floor(about.max_upload / 2 ** 20);
    fail(`${file.name} is too large: at most ${megabytes} MB can be searched by`);
    return;
  }
  quiet();
  results.setAttribute("aria-busy", "true");
  dim(true);
  say(`Looking at ${file.name}`);
  try {
    const { values } = await request("/api/code", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    if (chosen) URL.revokeObjectURL(chosen.url);
    chosen = { values, url: URL.createObjectURL(file), name: file.name };
    await go(searchFor("values", values));
  } catch (error) {
    fail(error.message);
    results.removeAttribute("aria-busy");
  }
}

const shotAt = (place) => results.children[place]?.querySelector(".shot");
const placeOf = (target) => [...results.children].indexOf(target.closest(".card"));

// Arrow keys between results; up from the first row is the search field.
function moveFocus(event) {
  const place = placeOf(event.target);
  const cards = [...results.children];
  const columns = cards.filter((each) => each.offsetTop === cards[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const ends = { Home: 0, End: cards.length - 1 };
  const to = event.key in ends ? ends[event.key] : place + by[event.key];
  if (Number.isNaN(to) || place < 0) return;
  event.preventDefault();
  if (event.key === "ArrowUp" && to < 0) words.focus();
  else if (event.key === "ArrowDown" && to >= cards.length && !$("more").hidden) $("more").focus();
  else shotAt(to)?.focus();
}

function listen() {
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    go(searchFor("text", words.value.trim()));
  });
  words.addEventListener("input", (event) => {
    if (event.isComposing) return;
    quiet();
    typed = Date.now();
    dim(words.value.trim() !== shown.text);
    // One entry of the history per query, not per letter.
    const options = { typing: true, replace: asked().has("text") && !byPicture(asked()) };
    timer = setTimeout(() => go(searchFor("text", words.value.trim()), options), TYPING_PAUSE);
  });
  words.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !results.children.length) return;
    event.preventDefault();
    shotAt(0).focus();
  });
  results.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey) moveFocus(event);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || $("view").open) return;
    if (event.target.matches("input:not([type=checkbox], [type=radio]), select")) return;
    event.preventDefault();
    words.focus();
    words.select();
  });
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    searchByPicture($("file").files[0]);
    $("file").value = ""; // so that the same one can be chosen again
  });
  $("find").addEventListener("change", (event) => go(address({ find: event.target.value })));
  $("more").addEventListener("click", () => more({ focus: true }));
  $("bits").addEventListener("change", () => {
    document.body.classList.toggle("no-bits", !$("bits").checked);
  });
  results.addEventListener("change", (event) => {
    event.target.checked = pick(shown.items[placeOf(event.target)], event.target.checked);
  });
  document.addEventListener("click", (event) => {
    const { tag, untag } = event.target.closest("[data-tag], [data-untag]")?.dataset ?? {};
    if (tag !== undefined || untag !== undefined) {
      closeView();
      go(addressOf(withTag(asked(), tag ?? untag, tag === undefined ? null : "all")));
      if (untag !== undefined) $("tag").focus();
      return;
    }
    const shot = event.target.closest(".shot");
    if (shot) {
      openView(placeOf(shot));
      return;
    }
    const link = event.target.closest("a[href^='/?'], a[href='/']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    closeView();
    go(link.getAttribute("href"));
    scrollTo({ top: 0 });
    if (link.className === "home") words.focus();
  });
  addEventListener("popstate", () => {
    closeView();
    if (!history.state) history.replaceState(newState(), "");
    search({ back: true });
  });
  let scrolled = 0;
  addEventListener("scroll", () => {
    clearTimeout(scrolled);
    scrolled = setTimeout(() => results.hasAttribute("aria-busy") || note({ y: scrollY }), 100);
  }, { passive: true });
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) searchByPicture(file);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      const left = kind === "dragleave" && event.relatedTarget === null;
      $("drop").hidden = kind === "drop" || left;
      if (kind === "drop") searchByPicture(event.dataTransfer.files[0]);
    });
  }
}

async function readAbout() {
  about = await request("/api/about");
  $("name").textContent = about.name;
  const parts = [
    about.images && count(about.images, "picture", "pictures"),
    about.texts && count(about.texts, "text", "texts"),
  ].filter(Boolean);
  words.placeholder = `Search ${parts.join(" and ") || count(about.items, "item", "items")}`;
  $("find").hidden = !(about.images && about.texts);
}

async function start() {
  history.scrollRestoration = "manual";
  if (!history.state?.key) history.replaceState(newState(), "");
  try {
    await readAbout();
  } catch (error) {
    fail(error.message);
    return;
  }
  startTags(about, (tag, how) => go(addressOf(withTag(asked(), tag, how))));
  startPicks(about);
  startView({
    items: () => shown.items,
    total: () => shown.total,
    bits: () => about.bits,
    like: (item) => searchFor("like", item.id),
    less: (item) => shown.code && withLess(item.id),
    more,
    closed: (place) => shotAt(place)?.focus(),
  });
  listen();
  await search({ back: true });
}

start();
