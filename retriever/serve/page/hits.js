// A list of hits: titles, snippets with the words that were found, metadata, and what opens under each.

import { count, element, marked, number } from "./dom.js";
import { why } from "./why.js";

const METADATA = 6;

// shown: index, query, title, actions. other: the ranks of the same documents in the list beside it.
export function hitList(hits, shown, other) {
  const list = element("ol", { class: "hits", "aria-label": `Hits of ${shown.title}` },
    hits.map((hit) => element("li", {}, article(hit, shown, other))));
  const heading = element("h2", { class: other ? "list-title" : "unseen" }, shown.title,
    element("span", { class: "count" }, ` ${number(shown.milliseconds, 1)} ms`));
  return element("section", { class: "list" }, heading, list);
}

function article(hit, shown, other) {
  const id = `${shown.title}-${hit.rank}`.replace(/[^\w-]/g, "-");
  const body = element("p", { class: "text", dir: "auto" }, snippetOf(hit));
  const open = element("div", { class: "why", id: `${id}-why`, hidden: true, tabIndex: 0, role: "group", "aria-label": "Why this hit" });
  const button = element("button", {
    type: "button", class: "link why-button", "aria-expanded": "false", "aria-controls": open.id,
    onclick: () => toggle(button, open, () => why(hit, shown)),
  }, "Why this hit");
  return element("article", { tabIndex: -1, class: "hit", "aria-labelledby": `${id}-title` },
    element("div", { class: "head" },
      element("span", { class: "rank" }, String(hit.rank)),
      element("h3", { id: `${id}-title`, dir: "auto" }, hit.title ? marked(hit.title, hit.title_highlights) : hit.doc_id),
      moved(hit, other),
      element("span", { class: "score", title: "score" }, number(hit.score, 3))),
    body,
    metadata(hit),
    element("div", { class: "actions" }, button, whole(hit, body),
      element("a", { class: "link", href: shown.likeAddress(hit.doc_id), "data-like": hit.doc_id }, "More like this"),
      hit.title ? element("span", { class: "id", dir: "auto" }, hit.doc_id) : ""),
    open);
}

function snippetOf(hit) {
  if (!hit.text.trim()) return element("em", {}, "no text");
  const { text, start, highlights } = hit.snippet;
  return [start ? "… " : "", ...marked(text, highlights), hit.snippet.end < Array.from(hit.text.trimEnd()).length ? "\u00a0…" : ""];
}

// A button that shows the whole text in place of the snippet, where there is more of it.
function whole(hit, body) {
  if (hit.snippet.text.length >= hit.text.trim().length) return null;
  const button = element("button", { type: "button", class: "link", "aria-expanded": "false", onclick: () => {
    const opened = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(opened));
    button.textContent = opened ? "Snippet" : "Whole text";
    body.classList.toggle("whole", opened);
    body.tabIndex = opened ? 0 : -1; // it may scroll
    body.replaceChildren(...(opened ? marked(hit.text, hit.highlights) : snippetOf(hit)));
  } }, "Whole text");
  return button;
}

function toggle(button, panel, make) {
  const opened = panel.hidden;
  if (opened && !panel.hasChildNodes()) panel.append(...make());
  panel.hidden = !opened;
  button.setAttribute("aria-expanded", String(opened));
}

function moved(hit, other) {
  if (!other) return null;
  const rank = other.get(hit.doc_id);
  if (rank === undefined) return element("span", { class: "moved alone" }, "only here");
  const [sign, name] = rank === hit.rank ? ["=", "same"] : rank > hit.rank ? ["▲", "up"] : ["▼", "down"];
  return element("span", { class: `moved ${name}` }, `${sign} #${rank} there`);
}

function metadata(hit) {
  const entries = Object.entries(hit.metadata).filter(([, value]) => value !== null && value !== "");
  if (!entries.length) return null;
  const more = entries.length - METADATA;
  return element("ul", { class: "metadata", "aria-label": "Metadata" },
    entries.slice(0, METADATA).map(([name, value]) => element("li", {},
      element("span", { class: "name" }, `${name} `),
      element("bdi", {}, typeof value === "object" ? JSON.stringify(value).slice(0, 80) : String(value).slice(0, 80)))),
    more > 0 ? element("li", { class: "name" }, `and ${count(more)} more`) : null);
}
