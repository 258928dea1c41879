// The address holds the query: ?text= or like= or code=, with tag=, find= and top=.
import { drawBits } from "./bits.js";

const STEP = 24;
const TYPING_PAUSE = 30; // ms: letters that come faster are searched for together
const TAGS = 3; // of an item that are shown at first
const $ = (id) => document.getElementById(id);
const [words, results, status, hint, query] = ["words", "results", "status", "hint", "query"].map($);
let about = { bits: 0, max_upload: 0, max_top: 0 };
let running = null; // the search that is under way
let chosen = null; // the picture that was searched by last: {code, url, name}
let timer = 0;

function element(name, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

const asked = () => new URLSearchParams(location.search);

function address(changes) {
  const parameters = asked();
  for (const [name, value] of Object.entries(changes)) {
    if (value) parameters.set(name, value);
    else parameters.delete(name);
  }
  const text = parameters.toString();
  return text ? `/?${text}` : "/";
}

const searchFor = (kind, value) =>
  address({ text: "", like: "", code: "", top: "", [kind]: value });

function go(url, { replace = false, typing = false } = {}) {
  if (url !== location.pathname + location.search) {
    history[replace ? "replaceState" : "pushState"](null, "", url);
  }
  return search(typing);
}

async function request(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is it still running?");
  }
  const content = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

async function search(typing = false) {
  clearTimeout(timer);
  running?.abort();
  const mine = (running = new AbortController());
  showControls(typing);
  results.setAttribute("aria-busy", "true");
  try {
    const found = await request(`/api/search${location.search}`, { signal: mine.signal });
    show(found, typing);
  } catch (error) {
    if (error.name !== "AbortError") fail(error.message);
  }
  if (running === mine) results.removeAttribute("aria-busy");
}

function fail(line) {
  say(line, true);
  query.hidden = true;
  hint.hidden = true;
  $("more").hidden = true;
  results.replaceChildren();
}

function say(line, isError = false) {
  status.textContent = line;
  status.classList.toggle("error", isError);
}

function showControls(typing) {
  const parameters = asked();
  if (!typing) words.value = parameters.get("text") ?? "";
  $("tag").value = parameters.get("tag") ?? "";
  $("untag").hidden = !$("tag").value;
  const find = parameters.get("find") ?? "";
  for (const radio of document.getElementsByName("find")) radio.checked = radio.value === find;
  document.title = [parameters.get("text"), about.name].filter(Boolean).join(" – ");
}

function show(found, typing) {
  const text = asked().get("text");
  showHint(found, typing, text);
  if (found.message && typing && text && !found.query) {
    say("");
    return; // an unfinished word: what was found before stays
  }
  showQuery(found.query);
  const code = found.query?.code ?? null;
  results.replaceChildren(...found.results.map((item) => card(item, code)));
  const top = Number(asked().get("top") ?? STEP);
  $("more").hidden = !found.query || found.results.length < top || top >= about.max_top;
  say(found.message ?? summary(found, text));
}

function summary(found, text) {
  const count = found.results.length;
  const items = `${count} ${count === 1 ? "item" : "items"}`;
  if (!found.query) return "A few of them, at random";
  const of = { text: `for “${text}”`, like: "like this one", code: "like your picture" };
  return `${items} ${of[found.query.kind]}, nearest first`;
}

function showHint(found, typing, text) {
  // A word that is still being typed is not reported.
  const last = text?.split(/\s+/).at(-1);
  const unknown = found.unknown.filter(({ word }) => !typing || word !== last);
  hint.replaceChildren();
  hint.hidden = !unknown.length;
  for (const { word, near } of unknown) {
    const line = element("p", {}, `“${word}” is not a word that these encoders know. `);
    if (near.length) line.append("Perhaps ");
    near.forEach((other, i) => {
      const better = text.split(/\s+/).map((part) => (part === word ? other : part)).join(" ");
      const link = element("a", { href: searchFor("text", better), textContent: other });
      line.append(i ? ", " : "", link);
    });
    line.append(near.length ? "?" : "");
    hint.append(line);
  }
}

function showQuery(asking) {
  query.hidden = !asking;
  if (!asking) return query.replaceChildren();
  const about_it = element("div", { className: "about" });
  const { kind, code, item } = asking;
  const shown = [];
  if (kind === "like") {
    about_it.append(element("h2", { textContent: "More like this" }));
    shown.push(content(item, "large"));
    if (item.path) about_it.append(element("p", { className: "path", textContent: item.path }));
    if (item.tags.length) about_it.append(tagList(item.tags));
  } else if (kind === "code") {
    const known = chosen?.code === code ? chosen : null;
    about_it.append(element("h2", { textContent: "Like your picture" }));
    if (known) {
      const label = `The picture ${known.name}`;
      shown.push(element("img", { src: known.url, alt: label, className: "picture" }));
    }
    about_it.append(
      element("p", { className: "path", textContent: known?.name ?? "a picture that was uploaded" }),
    );
  } else {
    about_it.append(element("h2", { textContent: `“${asked().get("text")}”` }));
  }
  const cells = element("figure", { className: "code" }, drawBits(code));
  cells.append(element("figcaption", {}, `${about.bits} bits: its code. Below, `,
    element("b", { textContent: "tall cells" }), " are bits in which an item differs."));
  about_it.append(cells);
  query.replaceChildren(...shown, about_it);
  query.classList.toggle("words", kind === "text");
}

function content(item, size) {
  if (!item.modality) return gone(name(item)); // only its id is known
  if (item.modality === "text") return element("blockquote", { textContent: item.text });
  if (item.gone) return gone("No longer on disk");
  const picture = element("img", {
    src: `/api/picture/${item.id}/${size}`,
    alt: name(item),
    className: "picture",
    loading: size === "small" ? "lazy" : "eager",
    decoding: "async",
  });
  picture.addEventListener("error", () => picture.replaceWith(gone("Cannot be shown")));
  return picture;
}

const gone = (line) => element("div", { className: "gone" }, element("span", { textContent: line }));

const name = (item) => (item.path ? item.path.split("/").at(-1) : item.text ?? `item ${item.id}`);

function tagList(tags) {
  const buttons = tags.map((tag) =>
    element("button", { type: "button", textContent: tag, title: `Only items tagged ${tag}`, dataset: { tag } }),
  );
  const list = element("div", { className: "tags" }, ...buttons.slice(0, TAGS));
  const rest = buttons.slice(TAGS);
  if (rest.length) {
    const label = `${rest.length} more tags`;
    const more = element("button", { type: "button", textContent: `+${rest.length}`, ariaLabel: label });
    more.addEventListener("click", () => {
      more.replaceWith(...rest);
      rest[0].focus();
    });
    list.append(more);
  }
  return list;
}

function card(item, code) {
  const link = element("a", { href: searchFor("like", item.id), className: "shot" }, content(item, "small"));
  let label = `More like ${name(item)}`;
  if (item.gone) label += ", no longer on disk";
  if (item.distance !== null) {
    label += `, ${item.distance} of ${about.bits} bits differ`;
    const title = `Hamming distance: ${item.distance} of ${about.bits} bits differ`;
    link.append(element("span", { className: "distance", textContent: item.distance, title }));
  }
  link.setAttribute("aria-label", label);
  const below = element("div", { className: "below" }, drawBits(item.code, code));
  if (item.path) {
    below.append(element("p", { className: "name", textContent: name(item), title: item.path }));
  }
  if (item.tags.length) below.append(tagList(item.tags));
  return element("li", { className: `card ${item.modality}` }, link, below);
}

async function searchByPicture(file) {
  if (!file) return;
  if (file.size > about.max_upload) {
    const megabytes = Math.floor(about.max_upload / 2 ** 20);
    fail(`${file.name} is too large: at most ${megabytes} MB can be searched by`);
    return;
  }
  running?.abort();
  results.setAttribute("aria-busy", "true");
  say(`Looking at ${file.name}`);
  try {
    const { code } = await request("/api/code", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    if (chosen) URL.revokeObjectURL(chosen.url);
    chosen = { code, url: URL.createObjectURL(file), name: file.name };
    await go(searchFor("code", code));
  } catch (error) {
    fail(error.message);
    results.removeAttribute("aria-busy");
  }
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  go(searchFor("text", words.value.trim()));
});
words.addEventListener("input", (event) => {
  clearTimeout(timer);
  if (event.isComposing) return;
  // One entry of the history per query, not per letter.
  const options = { typing: true, replace: asked().has("text") };
  timer = setTimeout(() => go(searchFor("text", words.value.trim()), options), TYPING_PAUSE);
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  searchByPicture($("file").files[0]);
  $("file").value = ""; // so that the same one can be chosen again
});
$("find").addEventListener("change", (event) => go(address({ find: event.target.value, top: "" })));
$("tag").addEventListener("change", () => go(address({ tag: $("tag").value.trim(), top: "" })));
$("untag").addEventListener("click", () => {
  $("tag").focus();
  go(address({ tag: "", top: "" }));
});
$("more").addEventListener("click", async () => {
  const before = results.children.length;
  const top = Math.min(Number(asked().get("top") ?? STEP) + STEP, about.max_top);
  await go(address({ top }), { replace: true });
  results.children[before]?.querySelector("a").focus(); // a keyboard goes on where it was
});
$("bits").addEventListener("change", () => {
  document.body.classList.toggle("no-bits", !$("bits").checked);
});
document.addEventListener("click", (event) => {
  const tag = event.target.closest("[data-tag]")?.dataset.tag;
  if (tag !== undefined) {
    go(address({ tag, top: "" }));
    return;
  }
  const link = event.target.closest("a[href]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  scrollTo({ top: 0 });
  go(link.getAttribute("href"));
  if (link.className === "home") words.focus();
});
addEventListener("popstate", () => search());
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

async function start() {
  try {
    about = await request("/api/about");
  } catch (error) {
    fail(error.message);
    return;
  }
  $("name").textContent = about.name;
  const count = (number, what) => (number ? `${number.toLocaleString("en")} ${what}` : "");
  const parts = [count(about.images, "pictures"), count(about.texts, "texts")].filter(Boolean);
  words.placeholder = `Search ${parts.join(" and ") || count(about.items, "items")}`;
  $("find").hidden = !(about.images && about.texts);
  $("tags").append(
    ...about.tags.map(({ tag, count: n }) => element("option", { value: tag, label: `${tag} (${n})` })),
  );
  $("tag").parentElement.hidden = !about.tags.length && about.items <= 200000;
  await search();
}

start();
