// Classification: the probability of each option as a bar.

import { Problem, post } from "./api.js";
import { asks, filled } from "./asking.js";
import { byId, el, fillIn } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { percent, say } from "./words.js";

const MOST = 26;

export function startClassify() {
  asks(byId("classify-form"), async (signal) => {
    const body = { text: filled(byId("classify-text")), options: options() };
    const question = byId("classify-question").value.trim();
    if (question) body.question = question;
    show(await post("v1/classify", body, signal));
  });
  byId("classify-form").addEventListener("input", () => byId("classify-bars").classList.add("stale"));
  byId("classify-example").addEventListener("click", () => {
    const example = EXAMPLES.classify;
    fillIn(byId("classify-text"), example.text);
    fillIn(byId("classify-question"), example.question);
    fillIn(byId("classify-options"), example.options.join("\n"));
  });
  return {};
}

function options() {
  const found = byId("classify-options").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (found.length >= 2 && found.length <= MOST && new Set(found).size === found.length) return found;
  byId("classify-options").focus();
  throw new Problem("options");
}

function show(answer) {
  const sorted = [...answer.options].sort((a, b) => b.probability - a.probability);
  byId("classify-empty").hidden = true;
  byId("classify-shortened").hidden = !answer.shortened;
  byId("classify-note").hidden = typeof answer.note !== "string"; // what the server says about the question
  byId("classify-note").querySelector("small").textContent = answer.note ?? "";
  byId("classify-bars").classList.remove("stale"); // until what was asked is changed
  byId("classify-bars").replaceChildren(...sorted.map((one) => bar(one, one.option === answer.best)));
  byId("classify-bars").scrollIntoView({ block: "nearest" }); // on a phone it is below the form
  say(byId("classify-said"), "classify.done", { option: answer.best, share: percent(sorted[0].probability) });
}

function bar({ option, probability }, best) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.max(0, Math.min(1, probability)) * 100}%`;
  return el(
    "li",
    { class: best ? "best" : "" },
    el("span", { class: "option", text: option }),
    el("span", { class: "share", text: percent(probability) }),
    el("span", { class: "bar-track", "aria-hidden": "true" }, fill),
  );
}
