// Asking the server: one request a call, its problem documents as errors, a key where it wants one.

const KEY = "retriever-key";

export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title || `the server answered ${status}`);
    this.status = status;
  }
}

export const rememberKey = (key) => sessionStorage.setItem(KEY, key);

export async function ask(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== "" && value !== undefined) query.append(name, value);
  const key = sessionStorage.getItem(KEY);
  let answer;
  try {
    answer = await fetch(`${path}?${query}`, { signal, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "", "the server cannot be reached; see whether it still runs, then search again");
  }
  const values = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, values.title, values.detail);
  return values;
}

const inside = (index, what) => `indexes/${encodeURIComponent(index)}/${what}`;

export const listIndexes = async () => (await ask("indexes")).indexes;
export const facets = async (index, field, top_k) => (await ask(inside(index, "facets"), { field, top_k })).facets;
export const experts = (index, query) => ask(inside(index, "experts"), { query });

// A mode that is a pipeline goes by another name, and not beside documents like another.
export const isPipeline = (mode, index) => mode.includes(">") || index.pipelines.includes(mode);

export function search(index, state, mode, filter, signal) {
  const how = { [isPipeline(mode, index) ? "pipeline" : "mode"]: mode, filter, top_k: state.size, offset: (state.page - 1) * state.size, explain: true, highlight: true };
  if (state.like) return ask(inside(index.name, "like"), { id: state.like, ...how }, signal);
  return ask(inside(index.name, "search"), { query: state.query, ...how }, signal);
}
