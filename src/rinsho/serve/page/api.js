// Requests to the server that this page came from, and to no other.

/** What went wrong: `kind` names our own sentence (`problem.*`), which `values` fill in; `detail` is the server's. */
export class Problem extends Error {
  constructor(kind, detail = "", { status = 0, code = null, seconds = null, values = {} } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, detail, status, code, seconds, values });
  }
}

const KINDS = {
  400: "request", 401: "key", 403: "request", 404: "missing", 408: "slow", 413: "large", 415: "request", 421: "request",
  429: "busy", 503: "stopping", 504: "time",
};

/** Gets JSON. */
export async function get(path, signal) {
  return json(await send(path, { signal }));
}

/** Posts JSON and gets JSON. */
export async function post(path, body, signal) {
  return json(await send(path, posted(body, signal)));
}

/** Posts JSON and yields the objects of the event stream that answers; returns at its `[DONE]`. */
export async function* stream(path, body, signal) {
  const response = await send(path, posted(body, signal));
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const said = parsed(data);
    if (said.error) throw new Problem("cut", said.error.message, { code: said.error.code });
    yield said;
  }
  throw new Problem("cut");
}

/** The data of server-sent events, whatever the pieces that the network makes of them. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest = (rest + (done ? "\n\n" : value)).replace(/\r\n/g, "\n");
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
      if (done) return;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("cut");
  } finally {
    reader.cancel().catch(() => {}); // the reader of this stream has left: let the server know
  }
}

function posted(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

async function send(path, settings) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...settings });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable");
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {} // not ours: a proxy in between
  const { status } = response;
  const kind = error.code === "context_length_exceeded" ? "long" : (KINDS[status] ?? "server");
  const seconds = Number(response.headers.get("Retry-After")) || null;
  return new Problem(kind, String(error.message ?? ""), { status, code: error.code ?? null, seconds });
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("cut");
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Problem("cut");
  }
}
