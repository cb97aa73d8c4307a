// What a reader does to the entities of one text: a list that every step replaces, so that it can be undone.

/** Entities of a text in UTF-16 units, corrected by hand. An entity is never changed, always replaced. */
export class Corrections {
  constructor(text, entities) {
    this.text = text;
    this.next = 0;
    this.past = [];
    this.saved = true; // whether everything done by hand has been downloaded
    this.entities = inOrder(entities.map((entity) => ({ ...entity, id: this.next++, checked: false })));
  }

  /** Marks a span by hand; false where it is marked so already. */
  add(start, end, kind) {
    return this.addAll([[start, end]], kind) > 0;
  }

  /** Marks several spans in one step; how many were not marked so before. */
  addAll(spans, kind) {
    const known = new Set(this.entities.filter((entity) => entity.kind === kind).map(place));
    const made = spans
      .filter(([start, end]) => start < end && !known.has(place({ start, end })))
      .map(([start, end]) => this.byHand(start, end, kind));
    if (made.length) this.step([...this.entities, ...made]);
    return made.length;
  }

  /** Removes entities. */
  remove(ids) {
    const gone = new Set(ids);
    this.step(this.entities.filter((entity) => !gone.has(entity.id)));
  }

  /** Gives an entity another kind; where that stands there already, only one is left. */
  change(id, kind) {
    const old = this.get(id);
    const others = this.entities.filter((entity) => entity.id !== id);
    const twin = others.some((entity) => entity.kind === kind && place(entity) === place(old));
    this.step(twin ? others : [...others, { ...this.byHand(old.start, old.end, kind), id }]);
  }

  /** Says that an entity is right, or takes that back. */
  check(id, checked) {
    this.step(this.entities.map((entity) => (entity.id === id ? { ...entity, checked } : entity)));
  }

  /** Takes the last step back; false where there is none. */
  undo() {
    if (!this.past.length) return false;
    this.entities = this.past.pop();
    this.saved = false;
    return true;
  }

  get(id) {
    return this.entities.find((entity) => entity.id === id);
  }

  /** The other entities of the same kind and the same words. */
  alike(entity) {
    return this.entities.filter((one) => one.kind === entity.kind && one.text === entity.text && one.id !== entity.id);
  }

  byHand(start, end, kind) {
    const text = this.text.slice(start, end);
    return { id: this.next++, kind, start, end, text, probability: null, source: "hand", checked: true };
  }

  step(entities) {
    this.past.push(this.entities);
    this.entities = inOrder(entities);
    this.saved = false;
  }
}

/** Whether an entity is not asserted: the model's probability is below the threshold, and nobody has checked it. */
export function isUnsure(entity, threshold) {
  return !entity.checked && entity.probability !== null && entity.probability < threshold;
}

const place = (entity) => `${entity.start}-${entity.end}`;

function inOrder(entities) {
  return [...entities].sort((a, b) => a.start - b.start || b.end - a.end || a.id - b.id);
}
