// What the page says, in the reader's language. An element names the sentence it shows: data-t, data-t-label and so on.

import { SENTENCES } from "./sentences.js";

const KEPT = "rinsho.language"; // the only thing that the page keeps
const ATTRIBUTES = { tLabel: "aria-label", tHint: "title", tPlaceholder: "placeholder", tTag: "data-tag" };

const SPEAKING = "[data-t], [data-t-label], [data-t-hint], [data-t-placeholder], [data-t-tag]";

let language = kept() ?? (navigator.language?.startsWith("ja") ? "ja" : "en");

/** The sentence of this key with `{name}` filled in; a key without a sentence is null. */
export function t(key, values = {}) {
  const sentence = SENTENCES[language][key];
  if (sentence === undefined) return null;
  const shown = (value) => (typeof value === "number" ? number(value) : value);
  return sentence.replace(/\{(\w+)\}/g, (_, key) => shown(values[key]));
}

/** A number as people of this language write it, with at most so many decimals. */
export function number(value, decimals = 2) {
  return value.toLocaleString(language, { maximumFractionDigits: decimals });
}

/** A share as a whole percentage; what is not all or nothing is never shown as 0 % or 100 %. */
export function percent(share) {
  const rounded = Math.round(share * 100);
  if (rounded === 100 && share < 1) return "> 99 %";
  if (rounded === 0 && share > 0) return "< 1 %";
  return `${rounded} %`;
}

/** Lets an element show a sentence, now and after the language has changed. */
export function say(element, key, values = {}) {
  element.dataset.t = key;
  element.dataset.values = JSON.stringify(values);
  element.textContent = t(key, values);
  return element;
}

/** Likewise of its attributes: `tLabel`, `tHint`, `tPlaceholder`. */
export function name(element, keys, values = {}) {
  Object.assign(element.dataset, keys);
  element.dataset.values = JSON.stringify(values);
  speak(element);
  return element;
}

/** Puts a whole part of the page into the language of now. */
export function translate(root) {
  for (const element of root.querySelectorAll(SPEAKING)) speak(element);
}

/** The language, or a change of it, which is remembered in this browser. */
export function currentLanguage() {
  return language;
}

export function setLanguage(chosen) {
  language = chosen in SENTENCES ? chosen : "en";
  try {
    localStorage.setItem(KEPT, language);
  } catch {} // storage is switched off: the choice lasts as long as the page
}

function speak(element) {
  const values = JSON.parse(element.dataset.values ?? "{}");
  if (element.dataset.t) element.textContent = t(element.dataset.t, values) ?? element.textContent;
  for (const [key, attribute] of Object.entries(ATTRIBUTES)) {
    if (element.dataset[key]) element.setAttribute(attribute, t(element.dataset[key], values) ?? "");
  }
}

function kept() {
  try {
    const found = localStorage.getItem(KEPT);
    return found in SENTENCES ? found : null;
  } catch {
    return null;
  }
}
