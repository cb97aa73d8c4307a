// The list of entities: one row each, with the kind, the words, the model's probability and what can be done with it.

import { byId, el, moveWith } from "./dom.js";
import { kindClass, sayKind } from "./kinds.js";
import { name, percent, say } from "./words.js";

/** The rows inside `root`; `does` can `jump(id)`, `change(id, kind)`, `check(id, checked)`, `remove(id)`. */
export class EntityList {
  constructor(root, does) {
    this.root = root;
    this.does = does;
    this.rows = new Map(); // id -> {entity, row, state}, in the order of the text
    this.kinds = [];
    const keys = { of: ".jump", next: "ArrowDown", previous: "ArrowUp", around: false };
    root.addEventListener("keydown", moveWith(keys, () => [...root.querySelectorAll(".jump")], (jump) => jump.click()));
    root.addEventListener("keydown", (event) => {
      if (event.key === "Delete" && event.target.matches(".jump")) does.remove(idOf(event.target));
    });
  }

  /** Shows these entities, each of one of these kinds. Entities that were shown before keep their rows. */
  show(entities, kinds) {
    const same = kinds.join("\n") === this.kinds.join("\n");
    const before = this.rows;
    this.kinds = kinds;
    this.rows = new Map();
    for (const entity of entities) {
      const known = before.get(entity.id);
      this.rows.set(entity.id, same && known?.entity === entity ? known : this.record(entity));
    }
    for (const [id, old] of before) if (this.rows.get(id) !== old) old.row.remove();
    let next = this.root.firstElementChild;
    for (const { row } of this.rows.values()) {
      if (row === next) next = next.nextElementSibling;
      else this.root.insertBefore(row, next);
    }
  }

  /** Shows which entities are unsure and which one is chosen; only its controls are tab stops. */
  paint(unsure, chosen) {
    const stop = this.rows.has(chosen) ? chosen : this.rows.keys().next().value;
    for (const [id, shown] of this.rows) {
      const state = [unsure.has(id), id === chosen, id === stop].join();
      if (shown.state === state) continue;
      shown.state = state;
      shown.row.classList.toggle("unsure", unsure.has(id));
      shown.row.classList.toggle("chosen", id === chosen);
      shown.row.querySelector(".flag").hidden = !unsure.has(id);
      const check = shown.row.querySelector(".check");
      if (check) check.hidden = !unsure.has(id) && check.getAttribute("aria-pressed") === "false";
      for (const control of shown.row.querySelectorAll("button, select")) control.tabIndex = id === stop ? 0 : -1;
      shown.row.querySelector(".jump").setAttribute("aria-current", String(id === chosen));
    }
  }

  /** Brings a row into view: inside the list where that scrolls by itself, else with the page. */
  reveal(id) {
    const row = this.rows.get(id)?.row;
    if (!row) return;
    if (this.root.scrollHeight <= this.root.clientHeight) return row.scrollIntoView({ block: "nearest" });
    const [top, lowest] = [row.offsetTop, row.offsetTop + row.offsetHeight - this.root.clientHeight];
    this.root.scrollTop = Math.max(lowest, Math.min(top, this.root.scrollTop));
  }

  /** Gives the keyboard to a row. */
  focus(id) {
    this.rows.get(id)?.row.querySelector(".jump").focus({ preventScroll: true });
  }

  record(entity) {
    return { entity, row: this.row(entity), state: "" };
  }

  row(entity) {
    const { does, kinds } = this;
    const act = (action) => (event) => action(idOf(event.currentTarget), event.currentTarget);
    const select = el("select", { class: "kind", on: { change: act((id, one) => does.change(id, one.value)) } });
    const known = kinds.includes(entity.kind) ? kinds : [...kinds, entity.kind];
    select.append(...known.map((kind) => sayKind(el("option", { value: kind }), kind)));
    select.value = entity.kind;
    const told = { text: entity.text };
    const jump = el("button", { type: "button", class: "jump", text: entity.text, on: { click: act(does.jump) } });
    const remove = el("button", { type: "button", class: "icon remove", on: { click: act(does.remove) } }, sign("×"));
    return el(
      "li",
      { class: kindClass(entity.kind), data: { id: String(entity.id) } },
      name(select, { tLabel: "entity.kind" }, told),
      name(jump, { tHint: "entity.jump" }),
      say(el("span", { class: "flag" }), "unsure"),
      share(entity),
      checkButton(entity, act((id, one) => does.check(id, one.getAttribute("aria-pressed") === "false")), told),
      name(remove, { tLabel: "entity.remove" }, told),
    );
  }
}

/** Fills a select with kinds. */
export function fillKinds(select, kinds) {
  const before = select.value;
  select.replaceChildren(...kinds.map((kind) => sayKind(el("option", { value: kind }), kind)));
  if (kinds.includes(before)) select.value = before;
}

/** A mark on the threshold's scale for each probability. */
export function showTicks(entities) {
  const ticks = entities.filter((entity) => entity.probability !== null && !entity.checked).map((entity) => {
    const tick = el("i", { class: kindClass(entity.kind) });
    tick.style.left = `${entity.probability * 100}%`;
    return tick;
  });
  byId("threshold-ticks").replaceChildren(...ticks);
}

function share({ probability, source }) {
  if (source === "hand") return name(say(el("span", { class: "share" }), "entity.hand"), { tHint: "entity.byhand" });
  if (probability === null) return name(say(el("span", { class: "share" }), "entity.rule"), { tHint: "entity.byrule" });
  return name(el("span", { class: "share", text: percent(probability) }), { tHint: "entity.share" });
}

function checkButton(entity, action, told) {
  if (entity.source === "hand") return null;
  const pressed = { "aria-pressed": String(entity.checked) };
  const button = el("button", { type: "button", class: "icon check", ...pressed, on: { click: action } }, sign("✓"));
  return name(button, { tLabel: "entity.check" }, told);
}

function sign(text) {
  return el("span", { "aria-hidden": "true", text });
}

function idOf(element) {
  return Number(element.closest("li").dataset.id);
}
