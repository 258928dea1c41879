// The selection: items picked on any page, and what is made of them.
import { request } from "./server.js";

const $ = (id) => document.getElementById(id);
const picked = new Map(); // id -> item, in the order in which they were picked
let most = 0;

export const isPicked = (id) => picked.has(id);

function show(line = "") {
  $("picked").hidden = !picked.size;
  document.body.classList.toggle("picking", picked.size > 0);
  $("picked-count").textContent = line || `${picked.size} selected`;
}

// Whether it is picked then.
export function pick(item, on) {
  const full = on && picked.size >= most && !picked.has(item.id);
  if (on && !full) picked.set(item.id, item);
  if (!on) picked.delete(item.id);
  show(full ? `${picked.size} selected, and no more can be` : "");
  for (const card of document.querySelectorAll(".card")) {
    if (card.dataset.id !== item.id) continue;
    card.classList.toggle("picked", picked.has(item.id));
    card.querySelector(".pick input").checked = picked.has(item.id);
  }
  return picked.has(item.id);
}

const size = (bytes) =>
  bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

async function save(form, limit) {
  const ids = [...picked.keys()].join(",");
  const count = picked.size;
  try {
    const found = await request(`/api/export?form=about&ids=${ids}`);
    if (form === "zip" && found.bytes > limit) {
      throw new Error(`${size(found.bytes)} are too much for one file, at most ${size(limit)}: take fewer`);
    }
    let line = `${count} selected`;
    if (form === "zip") {
      line += `: ${found.files} ${found.files === 1 ? "file" : "files"}, ${size(found.bytes)}`;
      if (found.gone) line += `; ${found.gone} no longer on disk`;
    }
    const link = document.createElement("a");
    link.href = `/api/export?form=${form}&ids=${ids}`;
    link.download = "";
    link.click();
    show(line);
  } catch (error) {
    show(`${count} selected. ${error.message}`);
  }
}

export function startPicks(about) {
  most = about.max_export;
  $("picked").addEventListener("click", (event) => {
    const form = event.target.dataset.form;
    if (form) save(form, about.max_export_bytes);
  });
  $("unpick").addEventListener("click", () => {
    for (const item of [...picked.values()]) pick(item, false);
    document.getElementById("words").focus();
  });
}
