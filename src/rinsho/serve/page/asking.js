// A form that asks the server: its button stops what it started, and what went wrong is said beside it.

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { codePoints } from "./offsets.js";
import { say, t } from "./words.js";

const LONGEST = 50_000; // characters of a text, as the server takes them (schemas.py)

/**
 * Calls `work(signal)` when the form is sent, once at a time.
 *
 * While it works the sending button reads "stop" and does so. Where `work` fails, the form's `.problem` says how.
 */
export function asks(form, work) {
  const button = form.querySelector("[type=submit]");
  const box = form.querySelector(".problem");
  const label = button.dataset.t;
  let running = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return running.abort();
    running = new AbortController();
    showProblem(box, null);
    form.setAttribute("aria-busy", "true");
    say(button, "stop").classList.add("stopping");
    const watch = stopwatch(button);
    try {
      await work(running.signal);
    } catch (error) {
      if (error.name !== "AbortError") showProblem(box, error);
    } finally {
      running = null;
      watch.stop();
      form.removeAttribute("aria-busy");
      say(button, label).classList.remove("stopping");
    }
  });
  return () => running?.abort();
}

/** Seconds that pass, shown before a button from the first one on. */
function stopwatch(button) {
  const shown = el("span", { class: "faint working" });
  const started = performance.now();
  const tick = () => say(shown, "working", { n: Math.floor((performance.now() - started) / 1000) });
  button.before(shown);
  const timer = setInterval(tick, 1000);
  return {
    stop() {
      clearInterval(timer);
      shown.remove();
    },
  };
}

/** Says in a box what went wrong, in our words and then in the server's; null empties it. */
export function showProblem(box, error) {
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  const known = error instanceof Problem && t(`problem.${error.kind}`) !== null;
  box.append(say(el("span"), known ? `problem.${error.kind}` : "problem.server", error.values ?? {}));
  const detail = error instanceof Problem ? error.detail : String(error.message ?? error);
  if (detail) box.append(" ", el("small", { text: detail }));
}

/** The text of a field; a Problem where there is none, or more than the server takes. */
export function filled(field) {
  const count = codePoints(field.value);
  if (field.value.trim() && count <= LONGEST) return field.value.toWellFormed?.() ?? field.value;
  field.focus();
  if (count <= LONGEST) throw new Problem("empty");
  throw new Problem("length", "", { values: { n: count, most: LONGEST } });
}
