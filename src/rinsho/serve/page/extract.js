// Extraction: a text goes to the server, its entities come back, and a reader corrects them here.

import { Problem, post } from "./api.js";
import { asks, filled, showProblem } from "./asking.js";
import { Corrections, isUnsure } from "./corrections.js";
import { csv } from "./csv.js";
import { byId, download, el, fillIn } from "./dom.js";
import { EntityList, fillKinds, showTicks } from "./entities.js";
import { EXAMPLES } from "./examples.js";
import { BY_RULE, kindClass, sayKind } from "./kinds.js";
import { Offsets } from "./offsets.js";
import { Report } from "./report.js";
import { places } from "./segments.js";
import { name, say } from "./words.js";

export function startExtract(about) {
  return new Extraction(about);
}

class Extraction {
  constructor(about) {
    this.about = about;
    this.work = null; // Corrections of the text that is shown
    this.asked = []; // kinds that were asked for
    this.chosen = null;
    this.selected = null; // units of a selection in the text
    this.report = new Report(byId("extract-report"), {
      picked: (id) => this.choose(id, { reveal: true }),
      selected: (range) => this.select(range),
    });
    this.list = new EntityList(byId("extract-list"), {
      jump: (id) => this.choose(id, { jump: true }),
      change: (id, kind) => this.change(id, kind),
      check: (id, checked) => this.check(id, checked),
      remove: (id) => this.remove(id),
    });
    asks(byId("extract-form"), (signal) => this.extract(signal));
    this.startButtons();
    this.startAdding();
    addEventListener("beforeunload", (event) => {
      if (this.work && !this.work.saved) event.preventDefault();
    });
  }

  startButtons() {
    const text = byId("extract-text");
    byId("extract-example").addEventListener("click", () => fillIn(text, EXAMPLES.extract));
    byId("extract-edit").addEventListener("click", () => this.showResult(false));
    byId("extract-back").addEventListener("click", () => this.showResult(true));
    text.addEventListener("input", () => {
      byId("extract-back").hidden = this.work?.text !== text.value;
    });
    byId("extract-undo").addEventListener("click", () => this.undo());
    byId("extract-result").addEventListener("keydown", (event) => {
      const typing = event.target.matches("input[type=text]");
      if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || typing) return;
      event.preventDefault();
      this.undo();
    });
    byId("threshold").addEventListener("input", () => this.paint());
    byId("save-csv").addEventListener("click", () => this.saveCsv());
    byId("save-rows").addEventListener("click", () => this.saveRows());
  }

  startAdding() {
    const field = byId("add-text");
    field.addEventListener("input", () => {
      this.selected = null;
      this.sayAdding();
    });
    byId("extract-add").addEventListener("submit", (event) => {
      event.preventDefault();
      this.add();
    });
  }

  aboutChanged() {
    const boxes = this.about().kinds.map((kind) => {
      const box = el("input", { type: "checkbox", name: "kind", value: kind, checked: true });
      return el("label", { class: `tick ${kindClass(kind)}` }, box, sayKind(el("span"), kind));
    });
    byId("extract-kinds").replaceChildren(byId("extract-kinds").querySelector("legend"), ...boxes);
  }

  languageChanged() {
    if (this.work) this.render(this.chosen); // tags in the text are words too
  }

  // ---------------------------------------------------------------- asking

  async extract(signal) {
    const text = filled(byId("extract-text"));
    const kinds = [...byId("extract-kinds").querySelectorAll("input:checked")].map((box) => box.value);
    if (!kinds.length) throw new Problem("kinds");
    const body = { text, kinds, threshold: this.threshold() };
    const answer = await post("v1/extract", body, signal);
    const offsets = new Offsets(text);
    const entities = answer.entities.map(({ kind, start, end, probability, source }) => {
      const [from, to] = [offsets.toUnits(start), offsets.toUnits(end)];
      return { kind, start: from, end: to, text: text.slice(from, to), probability, source };
    });
    this.work = new Corrections(text, entities);
    Object.assign(this, { asked: kinds, chosen: null, selected: null });
    byId("add-text").value = "";
    byId("extract-cut").hidden = !answer.cut;
    this.render();
    this.tell("extract.done", { n: entities.length });
    this.showResult(true);
  }

  showResult(shown) {
    byId("extract-ask").hidden = shown;
    byId("extract-result").hidden = !shown;
    byId("extract-back").hidden = !this.work;
    window.scrollTo(0, 0);
    byId(shown ? "extract-report" : "extract-text").focus({ preventScroll: true });
  }

  // ---------------------------------------------------------------- correcting

  remove(id) {
    const gone = this.work.get(id);
    const place = this.work.entities.indexOf(gone);
    this.work.remove([id]);
    const next = this.work.entities[Math.min(place, this.work.entities.length - 1)];
    this.render(next?.id ?? null, true);
    if (!next) byId("extract-undo").focus();
    this.tell("remove.done", { text: gone.text });
    this.offerAlike(gone);
  }

  offerAlike(gone) {
    const alike = this.work.alike(gone).map((entity) => entity.id);
    const button = byId("extract-alike");
    button.hidden = !alike.length;
    if (!alike.length) return;
    say(button, "remove.alike", { n: alike.length });
    button.onclick = () => {
      this.work.remove(alike);
      this.render();
      this.tell("remove.done", { text: gone.text });
      byId("extract-undo").focus();
    };
  }

  change(id, kind) {
    const { text } = this.work.get(id);
    this.work.change(id, kind);
    this.render(id, true);
    this.tell("change.done", { text });
  }

  check(id, checked) {
    this.work.check(id, checked);
    this.render(id, true);
    this.tell(checked ? "check.done" : "check.undone", { text: this.work.get(id).text });
  }

  add() {
    const field = byId("add-text");
    const word = field.value.trim();
    const spans = this.spansToAdd();
    if (!spans.length) return field.focus();
    const count = this.work.addAll(spans, byId("add-kind").value);
    this.render();
    if (!count) return this.tell("add.already");
    field.value = "";
    this.selected = null;
    this.sayAdding();
    this.tell("add.done", { text: word, n: count });
  }

  undo() {
    if (!this.work?.undo()) return;
    this.render(this.chosen, byId("extract-list").contains(document.activeElement));
    this.tell("undo.done");
  }

  select(range) {
    if (!this.work || byId("extract-result").hidden) return;
    this.selected = range;
    if (range) byId("add-text").value = this.work.text.slice(range.start, range.end);
    this.sayAdding();
  }

  /** The units that the add button would mark: the selection, else every place of the typed word. */
  spansToAdd() {
    if (this.selected) return [[this.selected.start, this.selected.end]];
    const word = byId("add-text").value.trim();
    return places(this.work?.text ?? "", word).map((start) => [start, start + word.length]);
  }

  sayAdding() {
    const button = byId("extract-add").querySelector("button");
    const count = this.spansToAdd().length;
    if (this.selected || !byId("add-text").value.trim()) say(button, "add.here");
    else if (count) say(button, "add.all", { n: count });
    else say(button, "add.none");
    button.disabled = !count;
    byId("extract-add").classList.toggle("selecting", this.selected !== null); // on a phone it comes into view
  }

  // ---------------------------------------------------------------- showing

  threshold() {
    return byId("threshold").valueAsNumber;
  }

  choose(id, { jump = false, reveal = false } = {}) {
    this.chosen = id;
    this.paint();
    if (jump) this.report.jump(id);
    if (reveal) this.list.reveal(id);
  }

  /** Everything that depends on the entities; `focus` gives the keyboard back to the chosen row. */
  render(chosen = null, focus = false) {
    this.chosen = chosen;
    const kinds = this.kinds();
    this.report.show(this.work.text, this.work.entities);
    this.list.show(this.work.entities, kinds);
    fillKinds(byId("add-kind"), kinds);
    showTicks(this.work.entities);
    byId("extract-undo").disabled = !this.work.past.length;
    byId("extract-none").hidden = this.work.entities.length > 0;
    say(byId("extract-none"), this.work.past.length ? "extract.left" : "extract.none");
    showProblem(byId("extract-result").querySelector(".problem"), null);
    this.sayAdding();
    this.paint();
    if (focus) this.list.focus(chosen);
  }

  kinds() {
    return [...new Set([...this.about().kinds, ...this.work.entities.map((entity) => entity.kind)])];
  }

  /** Of each kind how many are asserted, and how many more are unsure. */
  showLegend(unsure) {
    const items = this.kinds().map((kind) => {
      const ids = this.work.entities.filter((entity) => entity.kind === kind).map((entity) => entity.id);
      if (!ids.length && !this.asked.includes(kind)) return null;
      const doubtful = ids.filter((id) => unsure.has(id)).length;
      const parts = [sayKind(el("span"), kind), el("b", { text: String(ids.length - doubtful) })];
      if (doubtful) parts.push(name(el("i", { text: `?${doubtful}` }), { tHint: "threshold.count" }, { n: doubtful }));
      return el("li", { class: kindClass(kind) }, ...parts);
    });
    byId("extract-legend").replaceChildren(...items.filter(Boolean));
  }

  paint() {
    const threshold = this.threshold();
    byId("threshold-value").textContent = `${Math.round(threshold * 100)} %`;
    if (!this.work) return;
    const unsure = new Set(this.unsure().map((entity) => entity.id));
    this.report.paint(unsure, this.chosen);
    this.list.paint(unsure, this.chosen);
    this.showLegend(unsure);
    say(byId("threshold-count"), "threshold.count", { n: unsure.size });
  }

  unsure() {
    return this.work.entities.filter((entity) => isUnsure(entity, this.threshold()));
  }

  tell(key, values = {}) {
    byId("extract-alike").hidden = true;
    byId("extract-said").replaceChildren(say(el("span"), key, values));
  }

  // ---------------------------------------------------------------- saving

  saveCsv() {
    const offsets = new Offsets(this.work.text);
    const rows = this.work.entities.map((entity) => ({
      ...entity,
      start: offsets.toPoints(entity.start),
      end: offsets.toPoints(entity.end),
      unsure: isUnsure(entity, this.threshold()),
      source: entity.source === "model" && entity.checked ? "model, checked" : entity.source,
    }));
    download("rinsho-entities.csv", csv(rows), "text/csv;charset=utf-8");
    this.work.saved = true;
  }

  /**
   * A row a kind: the words that the model should have found, each once, in the order of the text.
   *
   * What is not in a row is learned as not there: a kind with a term that nobody has decided on has no row.
   */
  async saveRows() {
    const box = byId("extract-result").querySelector(".problem");
    showProblem(box, null);
    const { work } = this;
    const undecided = new Set(this.unsure().map((entity) => entity.kind));
    const kinds = new Set([...this.asked, ...work.entities.map((entity) => entity.kind)]);
    kinds.delete(BY_RULE);
    const rows = [...kinds].filter((kind) => !undecided.has(kind)).map((kind) => {
      const words = work.entities.filter((entity) => entity.kind === kind).map((entity) => entity.text);
      return { text: work.text, kind, entities: [...new Set(words)] };
    });
    try {
      if (!rows.length) throw new Problem("rows");
      const answer = await post("v1/training-rows", { rows });
      download("rinsho-training.jsonl", answer.jsonl, "application/x-ndjson;charset=utf-8");
      work.saved ||= !undecided.size;
      this.tellRows([...undecided]);
    } catch (error) {
      showProblem(box, error);
    }
  }

  /** Names the kinds that the training rows do not have. */
  tellRows(undecided) {
    if (!undecided.length) return this.tell("save.done");
    this.tell("save.undecided");
    const names = undecided.flatMap((kind) => [" · ", sayKind(el("b"), kind)]);
    byId("extract-said").append(...names.slice(1));
  }
}
