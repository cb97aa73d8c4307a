// The text with its entities marked. Marks hold nothing but the text, so that a selection counts its characters.

import { el } from "./dom.js";
import { kindClass, kindTag } from "./kinds.js";
import { difference, segments } from "./segments.js";

/** The marked text inside `root`; `picked(id)` is called for a mark, `selected(range or null)` for a selection. */
export class Report {
  constructor(root, { picked, selected }) {
    this.root = root;
    this.marks = new Map(); // id -> its elements, first to last
    this.unsure = new Set(); // as painted
    root.addEventListener("click", (event) => {
      const mark = event.target.closest("mark");
      if (mark && document.getSelection().isCollapsed) picked(Number(mark.dataset.id));
    });
    document.addEventListener("selectionchange", () => {
      const found = this.selection();
      if (found !== undefined) selected(found);
    });
  }

  /** Shows a text with these entities (UTF-16 units). */
  show(text, entities) {
    this.marks = new Map(entities.map((entity) => [entity.id, []]));
    this.unsure = new Set();
    const parts = segments(text.length, entities).map((segment) => {
      const words = text.slice(segment.start, segment.end);
      return segment.spans.length ? this.mark(words, segment) : document.createTextNode(words);
    });
    this.root.replaceChildren(...parts);
  }

  /** Shows which entities are unsure and which one is chosen; touches only what differs from before. */
  paint(unsure, chosen) {
    for (const id of difference(this.unsure, unsure)) {
      for (const mark of this.marks.get(id) ?? []) {
        if (Number(mark.dataset.id) === id) mark.classList.toggle("unsure", unsure.has(id));
        else if (Number(mark.dataset.outer) === id) mark.classList.toggle("unsure-outer", unsure.has(id));
      }
    }
    this.unsure = unsure;
    for (const mark of this.root.querySelectorAll("mark.chosen")) mark.classList.remove("chosen");
    for (const mark of this.marks.get(chosen) ?? []) mark.classList.add("chosen");
  }

  /** Brings an entity into view: inside the text where that scrolls by itself (on a phone), else with the page. */
  jump(id) {
    const mark = this.marks.get(id)?.[0];
    const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
    if (!mark) return;
    if (this.root.scrollHeight <= this.root.clientHeight) return mark.scrollIntoView({ block: "center", behavior });
    const [there, here] = [mark.getBoundingClientRect(), this.root.getBoundingClientRect()];
    this.root.scrollBy({ top: there.top - here.top - (here.height - there.height) / 2, behavior });
    if (here.top < 0 || here.bottom > innerHeight) this.root.scrollIntoView({ block: "nearest", behavior });
  }

  /** The selected units of the text without white space at both ends, null for none, undefined for one elsewhere. */
  selection() {
    const chosen = document.getSelection();
    const inside = this.root.contains(chosen.anchorNode) && this.root.contains(chosen.focusNode);
    if (!chosen.rangeCount || !inside) return undefined;
    const range = chosen.getRangeAt(0);
    const words = range.toString();
    if (!words.trim()) return null;
    const before = document.createRange();
    before.selectNodeContents(this.root);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length + words.length - words.trimStart().length;
    return { start, end: start + words.trim().length };
  }

  /** One segment: coloured by its innermost entity, underlined by the outermost; the last one has the kind's tag. */
  mark(words, { end, spans }) {
    const [outer, inner] = [spans[0], spans.at(-1)];
    const ending = spans.filter((span) => span.end === end).reverse();
    const made = el("mark", {
      class: `${kindClass(inner.kind)}${outer === inner ? "" : ` nested o${kindClass(outer.kind).slice(1)}`}`,
      text: words,
      data: { id: String(inner.id), outer: String(outer.id) },
    });
    if (ending.length) made.dataset.tag = ending.map((span) => kindTag(span.kind)).join("");
    for (const span of spans) this.marks.get(span.id).push(made);
    return made;
  }
}
