// The page: reads the address, asks, shows, and answers the keyboard.

import { Problem, isPipeline, listIndexes, rememberKey, search } from "./api.js";
import { count, element, find, number } from "./dom.js";
import { chosenFilters, showFilters } from "./filters.js";
import { hitList } from "./hits.js";
import { address, countFilters, filterOf, readState } from "./state.js";

const WAIT = 150; // milliseconds after which a search that is not done yet says so
let indexes = [];
let asking = null;

const indexOf = (state) => indexes.find((index) => index.name === state.index) ?? indexes[0];
const defaultMode = (index) => (index.legs.length > 1 ? "hybrid" : index.legs[0]);
const hybridLegs = (index) => index.legs.filter((leg) => index.fusion.weights[leg] > 0);

function legsOf(mode, index, hits) {
  if (isPipeline(mode, index)) return index.legs.filter((leg) => hits.some((hit) => leg in hit.parts));
  return mode === "hybrid" ? hybridLegs(index) : mode.split("+");
}

function modesOf(index, ...given) {
  const known = index.legs.length > 1 ? ["hybrid", ...index.legs] : [...index.legs];
  return [...new Set([...known, ...given.filter((mode) => mode && !isPipeline(mode, index))])];
}

const pipelinesOf = (index, ...given) =>
  [...new Set([...index.pipelines, ...given.filter((mode) => mode && isPipeline(mode, index))])];

function go(changes) {
  const next = { ...readState(), page: 1, ...changes };
  history.pushState(null, "", address(next));
  show();
}

async function show() {
  const state = readState();
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  find("problem").replaceChildren();
  try {
    if (!indexes.length) indexes = await listIndexes();
    const index = indexOf(state);
    if (state.index && index.name !== state.index) throw new Problem(404, "", `there is no index ${state.index}; choose one of those that are served`);
    showControls(state, index);
    const filters = showFilters(index, state);
    if (state.query.trim() || state.like) await showHits(state, index, signal);
    else welcome(index);
    await filters;
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
  } finally {
    if (asking?.signal === signal) find("lists").ariaBusy = "false";
  }
}

function showControls(state, index) {
  const mode = state.mode || defaultMode(index);
  const modes = modesOf(index, state.mode, state.compare);
  const pipelines = state.like ? [] : pipelinesOf(index, state.mode, state.compare);
  find("query").value = state.query;
  find("modes").replaceChildren(element("legend", { class: "unseen" }, "Mode"), ...modes.map((name) =>
    element("label", {}, element("input", { type: "radio", name: "mode", value: name, checked: name === mode,
      onchange: () => go({ mode: name === defaultMode(index) ? "" : name, compare: name === state.compare ? "" : state.compare }) }),
    element("span", {}, name))));
  choose("pipeline", ["", ...pipelines], mode);
  find("pipeline-label").hidden = !pipelines.length;
  choose("compare", ["", ...[...modes, ...pipelines].filter((name) => name !== mode)], state.compare);
  find("compare-label").hidden = modes.length + pipelines.length < 2;
  find("index").replaceChildren(...indexes.map(({ name }) => element("option", { value: name, selected: name === index.name }, name)));
  find("index-label").hidden = indexes.length < 2;
  const filters = countFilters(state);
  find("filter-count").textContent = filters ? String(filters) : "";
  document.title = state.query ? `${state.query} – retriever` : "retriever";
}

const choose = (id, values, chosen) => find(id).replaceChildren(...values.map((value) =>
  element("option", { value, selected: value === chosen }, value || "none")));

async function showHits(state, index, signal) {
  const filter = filterOf(state);
  const asked = [state.mode, state.compare].filter((mode) => !(state.like && isPipeline(mode, index)));
  const modes = [asked[0] || defaultMode(index), ...asked.slice(1).filter(Boolean)];
  const late = setTimeout(() => { find("status").textContent = "Searching …"; find("lists").ariaBusy = "true"; }, WAIT);
  let answers;
  try {
    answers = await Promise.all(modes.map((mode) => search(index, state, mode, filter, signal)));
  } finally {
    clearTimeout(late);
  }
  if (signal.aborted) return;
  const ranks = answers.map(({ hits }) => new Map(hits.map((hit) => [hit.doc_id, hit.rank])));
  find("lists").classList.toggle("two", answers.length > 1);
  find("lists").replaceChildren(...answers.map(({ hits, milliseconds }, at) => hitList(hits, {
    title: modes[at], index: index.name, query: state.query, milliseconds, legs: index.legs, modeLegs: legsOf(modes[at], index, hits),
    weights: index.fusion.method === "rrf" ? {} : index.fusion.weights, encodes: index.legs.length > 1,
    likeAddress: (id) => address({ ...state, query: "", like: id, page: 1 }),
  }, answers.length > 1 ? ranks[1 - at] : undefined)));
  say(state, answers, filter);
}

function say(state, answers, filter) {
  const [{ hits, milliseconds }] = answers;
  const found = Math.max(...answers.map((answer) => answer.hits.length));
  const what = state.like ? ["Like ", element("bdi", {}, state.like), ": "] : [];
  const first = (state.page - 1) * state.size + 1;
  find("status").replaceChildren(...what, found ? `hits ${first}–${first + found - 1}` : "no hits",
    answers.length === 1 && hits.length ? ` in ${number(milliseconds, 1)} ms` : "");
  if (!found) {
    const remedies = [
      state.page > 1 ? element("button", { type: "button", onclick: () => go({}) }, "First page") : null,
      filter ? element("button", { type: "button", onclick: clear }, "Without filters") : null,
    ];
    find("lists").replaceChildren(element("p", { class: "notice" },
      state.page > 1 ? "There are no more hits." : "Nothing was found. Other words or another mode may find something.",
      element("span", { class: "actions" }, remedies)));
  }
  find("pages").hidden = state.page === 1 && found < state.size;
  find("previous").disabled = state.page === 1;
  find("next").disabled = found < state.size;
  find("page-number").textContent = `page ${state.page}`;
}

function welcome(index) {
  find("pages").hidden = true;
  find("status").textContent = "";
  find("lists").classList.remove("two");
  find("lists").replaceChildren(element("p", { class: "notice" },
    `${count(index.documents)} documents in ${index.name}, searched by ${index.legs.join(", ")}`,
    index.legs.length > 1 ? `; encoder: ${index.encoder.name}` : ""));
}

function showProblem(error) {
  find("status").textContent = "";
  find("lists").replaceChildren();
  find("pages").hidden = true;
  find("problem").replaceChildren(element("p", { class: "problem", dir: "auto" }, error.message));
  if (error.status === 401) {
    const input = element("input", { type: "password", id: "key", autocomplete: "off", required: true });
    find("problem").append(element("form", { class: "key", onsubmit: (event) => {
      event.preventDefault();
      rememberKey(input.value);
      show();
    } }, element("label", { htmlFor: "key" }, "API key"), input, element("button", { type: "submit" }, "Use")));
    input.focus();
  }
}

const clear = () => go({ chosen: {}, expression: "" });

find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  go({ query: find("query").value, like: "" });
});
find("filter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  go(chosenFilters(readState()));
});
find("fields").addEventListener("change", (event) => event.target.type === "checkbox" && go(chosenFilters(readState())));
find("clear").addEventListener("click", clear);
find("pipeline").addEventListener("change", (event) =>
  go({ mode: event.target.value, compare: event.target.value === readState().compare ? "" : readState().compare }));
find("compare").addEventListener("change", (event) => go({ compare: event.target.value }));
find("index").addEventListener("change", (event) =>
  go({ index: event.target.value === indexes[0].name ? "" : event.target.value, chosen: {}, expression: "", mode: "", compare: "", like: "" }));
for (const [id, step] of [["previous", -1], ["next", 1]])
  find(id).addEventListener("click", () => {
    go({ page: Math.max(1, readState().page + step) });
    find("results").focus();
    scrollTo({ top: 0 });
  });
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-like], #home");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  show();
});
addEventListener("popstate", show);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.matches("input:not([type=radio], [type=checkbox]), select, textarea");
  if (event.key === "/" && !writing) {
    event.preventDefault();
    find("query").select();
  } else if (event.key === "Escape") escape(event);
  else if (["ArrowDown", "ArrowUp"].includes(event.key) && (!writing || event.target.id === "query")) move(event);
  else if (event.key === "Enter" && event.target.matches(".hit")) event.target.querySelector(".why-button").click();
});

function move(event) {
  if (event.target.matches("input[type=radio]")) return;
  const hits = [...document.querySelectorAll(".hit")];
  const at = hits.indexOf(event.target.closest(".hit"));
  const next = at + (event.key === "ArrowDown" ? 1 : -1);
  if (!hits.length || (at < 0 && event.key === "ArrowUp")) return;
  event.preventDefault();
  if (next < 0) find("query").focus();
  else hits[Math.min(next, hits.length - 1)].focus();
}

function escape(event) {
  const button = event.target.closest(".hit")?.querySelector(".why-button[aria-expanded=true]");
  if (button) {
    button.click();
    button.closest(".hit").focus();
  } else if (event.target.id === "query") event.target.blur();
  else find("query").focus();
}

if (matchMedia("(max-width: 50rem)").matches) find("filters").open = false;
show();
