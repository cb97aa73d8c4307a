// Spans may lie inside one another; the page shows a row of segments, each under the same spans throughout.

/**
 * The segments of a text of this length, in order: `{start, end, spans}`, the shortest span last.
 * Every span is `{start, end, ...}`; empty ones and what lies outside the text are left out.
 */
export function segments(length, spans) {
  const inside = spans.filter((span) => span.start >= 0 && span.start < span.end && span.end <= length);
  const bounds = [...new Set([0, length, ...inside.flatMap((span) => [span.start, span.end])])].sort((a, b) => a - b);
  const waiting = [...inside].sort((a, b) => a.start - b.start);
  const found = [];
  let open = [];
  let next = 0;
  for (let place = 0; place + 1 < bounds.length; place += 1) {
    const [start, end] = [bounds[place], bounds[place + 1]];
    while (next < waiting.length && waiting[next].start <= start) open.push(waiting[next++]);
    open = open.filter((span) => span.end > start);
    const shown = [...open].sort((a, b) => b.end - b.start - (a.end - a.start));
    found.push({ start, end, spans: shown });
  }
  return found;
}

/** Every place of a word in a text, left to right, places that overlap counted once: units. */
export function places(text, word) {
  const found = [];
  for (let at = word ? text.indexOf(word) : -1; at >= 0; at = text.indexOf(word, at + word.length)) found.push(at);
  return found;
}

/** What is in one of two sets only. */
export function difference(first, second) {
  return [...[...first].filter((one) => !second.has(one)), ...[...second].filter((one) => !first.has(one))];
}
