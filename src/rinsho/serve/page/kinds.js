// Names and colours of the kinds of entities. Own tasks have their own names and one of three colours.

import { say, t } from "./words.js";

const KNOWN = ["disease", "medicine", "value", "finding"];
const OWN_COLOURS = 3;
export const BY_RULE = "value"; // found by rules, so that no model learns it

let own = [];

/** Tells which kinds the model knows, in its order. */
export function setKinds(kinds) {
  own = kinds.filter((kind) => !KNOWN.includes(kind));
}

/** The class that gives a kind its colour. */
export function kindClass(kind) {
  if (KNOWN.includes(kind)) return `k-${kind}`;
  return `k-own${Math.max(0, own.indexOf(kind)) % OWN_COLOURS}`;
}

/** The kind's name in the language of now. */
export function kindName(kind) {
  return t(`kind.${kind}`) ?? kind;
}

/** Lets an element show the kind's name. */
export function sayKind(element, kind) {
  if (KNOWN.includes(kind)) return say(element, `kind.${kind}`);
  element.textContent = kind;
  return element;
}

/** One or two characters for the kind, so that it is not told by colour alone. */
export function kindTag(kind) {
  return t(`tag.${kind}`) ?? [...kind][0] ?? "";
}
