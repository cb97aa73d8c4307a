// Tokens: the pieces in which the model reads a text, each with its id and its place in the text as pasted.

import { post } from "./api.js";
import { asks, filled } from "./asking.js";
import { byId, el, fillIn } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { Offsets } from "./offsets.js";
import { name, percent, say } from "./words.js";

const SHOWN = { "\n": "↵", "\t": "⇥", " ": "␣", "　": "□", "▁": "␣" };

export function startTokens(about) {
  asks(byId("tokens-form"), async (signal) => {
    const text = filled(byId("tokens-text"));
    show(text, await post("v1/tokens", { text }, signal), about().window);
  });
  byId("tokens-text").addEventListener("input", () => byId("tokens-result").classList.add("stale"));
  byId("tokens-ids").addEventListener("change", (event) => {
    byId("tokens-list").classList.toggle("with-ids", event.target.checked);
  });
  byId("tokens-example").addEventListener("click", () => {
    fillIn(byId("tokens-text"), EXAMPLES.tokens);
  });
  return {};
}

function show(text, answer, window) {
  const offsets = new Offsets(text);
  byId("tokens-empty").hidden = true;
  byId("tokens-result").hidden = false;
  byId("tokens-result").classList.remove("stale");
  byId("tokens-list").replaceChildren(...answer.tokens.map((token) => chip(token, text, offsets)));
  byId("tokens-result").scrollIntoView({ block: "nearest" });
  const each = answer.count ? Math.round((answer.characters / answer.count) * 100) / 100 : 0;
  say(byId("tokens-sum"), "tokens.sum", { count: answer.count, characters: answer.characters, each });
  if (window) say(byId("tokens-window"), "tokens.window", { share: percent(answer.count / window) });
}

function chip({ id, piece, start, end }, text, offsets) {
  const raw = text.slice(offsets.toUnits(start), offsets.toUnits(end));
  const shown = [...piece].map((character) => SHOWN[character] ?? character).join("");
  const bytes = /^(<0x[0-9A-F]{2}>)+$/.test(piece); // a part of a character
  const cleaned = !bytes && piece.replaceAll("▁", " ").trim() !== raw.trim();
  const made = el(
    "span",
    { class: cleaned ? "token cleaned" : "token", role: "listitem" },
    el("span", { class: "piece", text: shown || "∅" }),
    el("span", { class: "id", text: String(id) }),
  );
  return name(made, { tHint: "tokens.token" }, { id: String(id), start: start + 1, end, raw });
}
