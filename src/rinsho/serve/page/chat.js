// Conversation: the answer appears as it is made, can be stopped, and nothing of it is kept anywhere.

import { Problem, stream } from "./api.js";
import { showProblem } from "./asking.js";
import { byId, el } from "./dom.js";
import { say } from "./words.js";

const NEAR = 80; // pixels from the end of the page within which the view follows the answer

export function startChat(about) {
  const form = byId("chat-form");
  const field = byId("chat-text");
  const box = form.querySelector(".problem");
  const button = form.querySelector("[type=submit]");
  let turns = []; // {role, content} that the model is told
  let running = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return running.abort();
    if (!field.value.trim()) return field.focus();
    ask(field.value);
    field.value = "";
  });
  field.addEventListener("keydown", (event) => {
    const converting = event.isComposing || event.keyCode === 229; // Enter of an input method
    if (event.key !== "Enter" || event.shiftKey || converting) return;
    event.preventDefault();
    if (!running) form.requestSubmit();
  });
  byId("panel-chat").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) running?.abort();
  });
  byId("chat-new").addEventListener("click", () => {
    running?.abort();
    turns = [];
    byId("chat-log").replaceChildren();
    byId("chat-empty").hidden = false;
    showProblem(box, null);
    field.focus();
  });

  async function ask(question) {
    const told = turns; // a new conversation replaces it, and what arrives late belongs to the old one
    const shown = showTurns(question);
    const answer = { text: "", finish: null, usage: null, forgotten: 0 };
    const started = performance.now();
    const signal = begin();
    try {
      await listen([...told, { role: "user", content: question }], answer, shown, signal);
    } catch (error) {
      if (error.name === "AbortError") answer.finish = "stopped";
      else fail(error, question, shown, answer);
    } finally {
      end(signal);
    }
    if (told === turns && answer.text && answer.finish !== "failed") {
      turns = [...told, { role: "user", content: question }, { role: "assistant", content: answer.text }];
    }
    finish(shown, answer, (performance.now() - started) / 1000);
  }

  /** Reads the answer; a conversation that is longer than the window loses its oldest exchanges, and it is said. */
  async function listen(messages, answer, shown, signal) {
    for (;;) {
      try {
        for await (const part of stream("v1/chat/completions", body(messages), signal)) {
          const choice = part.choices?.[0];
          if (part.usage) answer.usage = part.usage;
          if (choice?.finish_reason) answer.finish = choice.finish_reason;
          if (choice?.delta?.content) grow(shown, answer, choice.delta.content);
        }
        return;
      } catch (error) {
        if (error.kind !== "long" || messages.length < 3 || answer.text) throw error;
        messages = messages.slice(2);
        answer.forgotten += 1;
      }
    }
  }

  function body(messages) {
    const system = byId("chat-system").value.trim();
    const asked = { model: about().name || "rinsho", messages, stream: true, stream_options: { include_usage: true } };
    if (system) asked.messages = [{ role: "system", content: system }, ...messages];
    const [temperature, most] = [byId("chat-temperature").valueAsNumber, byId("chat-max").valueAsNumber];
    if (temperature >= 0) asked.temperature = temperature;
    if (most >= 1) asked.max_tokens = Math.floor(most);
    return asked;
  }

  function begin() {
    running = new AbortController();
    showProblem(box, null);
    say(button, "stop").classList.add("stopping");
    byId("chat-log").setAttribute("aria-busy", "true"); // read out when it is whole
    return running.signal;
  }

  function end(signal) {
    if (running?.signal !== signal) return;
    running = null;
    say(button, "chat.send").classList.remove("stopping");
    byId("chat-log").removeAttribute("aria-busy");
  }

  function fail(error, question, shown, answer) {
    answer.finish = "failed";
    if (!shown.turn.isConnected) return;
    const follow = nearEnd();
    const said = el("div", { class: "problem", role: "alert" });
    const retry = el("button", { type: "button", class: "quiet", on: { click: () => again(question, shown) } });
    shown.turn.append(said);
    showProblem(said, error);
    said.append(el("div", {}, say(retry, "chat.again")));
    if (follow) toEnd();
  }

  function again(question, shown) {
    if (running) return;
    shown.question.remove();
    shown.turn.remove();
    ask(question);
  }

  return {
    aboutChanged() {
      if (about().chat) return;
      showProblem(box, new Problem("form"));
      field.disabled = button.disabled = true;
    },
  };
}

function showTurns(question) {
  const parts = { text: el("p", { class: "said" }), meta: el("p", { class: "meta faint" }) };
  const asked = el("p", { class: "said", text: question });
  parts.question = el("article", { class: "turn user" }, say(el("h3"), "chat.you"), asked);
  parts.turn = el("article", { class: "turn model waiting" }, say(el("h3"), "chat.model"), parts.text, parts.meta);
  byId("chat-empty").hidden = true;
  byId("chat-log").append(parts.question, parts.turn);
  toEnd();
  return parts;
}

function grow(shown, answer, piece) {
  const follow = nearEnd();
  answer.text += piece;
  shown.text.append(piece);
  if (follow) toEnd();
}

function nearEnd() {
  const page = document.documentElement;
  return page.scrollHeight - page.clientHeight - page.scrollTop < NEAR;
}

function toEnd() {
  window.scrollTo(0, document.documentElement.scrollHeight);
}

function finish(shown, answer, seconds) {
  shown.turn.classList.remove("waiting");
  if (!answer.text && answer.finish !== "failed" && answer.finish !== "stopped") say(shown.text, "chat.nothing");
  const notes = [];
  if (answer.finish === "stopped") notes.push(say(el("span", { class: "beware" }), "chat.stopped"));
  else if (answer.finish === "length") notes.push(say(el("span", { class: "beware" }), "chat.length"));
  else if (!["stop", "failed"].includes(answer.finish)) notes.push(say(el("span", { class: "beware" }), "chat.ended"));
  if (answer.forgotten) notes.push(say(el("span"), "chat.forgotten", { n: answer.forgotten }));
  if (answer.usage) {
    const counts = { n: answer.usage.completion_tokens, seconds: seconds.toFixed(1) };
    notes.push(say(el("span"), "chat.meta", counts));
  }
  const follow = nearEnd();
  shown.meta.append(...notes);
  if (follow) toEnd();
}
