// Why a hit stands where it stands: what each leg and stage said, the terms that matched, the experts of the query's tokens.

import { experts } from "./api.js";
import { element, number } from "./dom.js";

const TERMS = 8;
const routes = new Map();

export function why(hit, shown) {
  return [legs(hit, shown), stages(hit), ...terms(hit, shown), ...said(hit), shown.query && shown.encodes ? routing(shown) : null].filter(Boolean);
}

const colour = (leg, shown) => `leg-${Math.max(0, shown.legs.indexOf(leg)) % 5}`;

function bar(share, kind, label) {
  return element("span", { class: `bar ${kind}`, role: "img", "aria-label": label },
    element("span", { share: `${Math.max(0, Math.min(1, share)) * 100}%` }));
}

function legs(hit, shown) {
  const alone = shown.modeLegs.length === 1;
  return element("table", { class: "legs" },
    element("caption", {}, "Legs"),
    element("thead", {}, element("tr", {}, ["leg", "rank", "score", alone ? "" : "normalised", alone ? "" : "weight"].filter(Boolean)
      .map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, shown.modeLegs.map((leg) => {
      const part = hit.parts[leg];
      const name = element("th", { scope: "row" }, element("span", { class: `dot ${colour(leg, shown)}` }), leg);
      if (!part) return element("tr", { class: "absent" }, name, element("td", { colSpan: alone ? 2 : 4 }, "did not find it"));
      return element("tr", {}, name, element("td", {}, `#${part.rank}`), element("td", {}, number(part.score, 3)),
        alone ? null : element("td", { class: "wide" },
          bar(part.normalised, colour(leg, shown), `normalised score ${number(part.normalised)}`),
          element("span", { class: "value" }, number(part.normalised))),
        alone ? null : element("td", {}, shown.weights[leg] === undefined ? "" : `× ${number(shown.weights[leg])}`));
    })));
}

// What each stage of the pipeline made of it, and how many places that moved it.
function stages(hit) {
  if (!hit.stages.length) return null;
  return element("table", { class: "legs stages" },
    element("caption", {}, "Stages, one after the other"),
    element("thead", {}, element("tr", {}, ["stage", "rank", "moved", "score", "took"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, hit.stages.map((stage, at) => element("tr", {},
      element("th", { scope: "row" }, stage.stage),
      element("td", {}, `#${stage.rank}`),
      element("td", {}, at ? places(hit.stages[at - 1].rank - stage.rank) : ""),
      element("td", {}, number(stage.score, 3)),
      element("td", {}, `${number(stage.milliseconds, 1)} ms`)))));
}

const places = (up) => (up ? element("span", { class: `moved ${up > 0 ? "up" : "down"}` }, `${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`) : "=");

function terms(hit, shown) {
  const largest = Math.max(...hit.terms.map((match) => match.contribution), 0);
  return shown.modeLegs.map((leg) =>
    matchTable(`Terms of ${leg}`, hit.terms.filter((match) => match.leg === leg), colour(leg, shown), largest));
}

// The words that a stage itself goes by, such as those that feedback added.
const said = (hit) => hit.stages.map((stage) => matchTable(`Words of ${stage.stage}`, stage.matches, "leg-4", 0));

function matchTable(caption, matches, kind, largest) {
  if (!matches.length) return null;
  const most = Math.max(...matches.map((match) => match.contribution), largest / 1000);
  const left = matches.length - TERMS;
  return element("table", { class: "terms" },
    element("caption", {}, caption, left > 0 ? element("span", { class: "count" }, ` ${TERMS} of ${matches.length}`) : null),
    element("thead", {}, element("tr", {}, ["term", "query × document", "adds"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, matches.slice(0, TERMS).map((match) => element("tr", {},
      element("th", { scope: "row", dir: "auto" }, match.term),
      element("td", {}, `${number(match.query_weight)} × ${number(match.doc_weight)}`),
      element("td", { class: "wide" },
        bar(match.contribution / most, kind, `adds ${number(match.contribution)}`),
        element("span", { class: "value" }, number(match.contribution)))))));
}

// Asked for once a query, when somebody looks.
function routing(shown) {
  const place = element("div", { class: "experts" });
  const key = `${shown.index} ${shown.query}`;
  if (!routes.has(key)) routes.set(key, experts(shown.index, shown.query));
  routes.get(key).then((found) => {
    if (!found.tokens.length) return;
    place.append(element("h4", {}, "Experts of the query’s tokens"),
      ...found.layers.map((layer, at) => element("p", {},
        element("span", { class: "layer" }, `${layer.name === "sparse head" ? "sparse head" : `layer ${layer.name}`}, of ${layer.experts}`),
        found.tokens.map((token) => element("span", { class: "token" },
          element("bdi", {}, token.text),
          token.experts[at].map((expert) => element("span", { class: `expert expert-${expert % 8}` }, String(expert))))))));
  }).catch((error) => {
    routes.delete(key); // it may be there when somebody looks again
    place.append(element("p", { class: "count" }, `The experts are not known: ${error.message}.`));
  });
  return place;
}
