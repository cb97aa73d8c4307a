// The server counts code points, JavaScript counts UTF-16 units: 𠮷 is one place there and two here.

/** Turns places in one text from code points to units and back. */
export class Offsets {
  constructor(text) {
    this.length = text.length;
    this.starts = null; // unit at which each code point starts; null where both counts are the same
    if (/[\ud800-\udbff][\udc00-\udfff]/.test(text)) {
      this.starts = [];
      for (let unit = 0; unit < text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1) this.starts.push(unit);
      this.starts.push(text.length);
    }
  }

  /** The unit of a code point; places behind the end are the end. */
  toUnits(point) {
    return this.starts ? this.starts[Math.min(point, this.starts.length - 1)] : Math.min(point, this.length);
  }

  /** The code point of a unit; the second half of a pair belongs to the code point that it ends. */
  toPoints(unit) {
    if (!this.starts) return unit;
    let [low, high] = [0, this.starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= unit) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Characters as people and the server count them. */
export function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
