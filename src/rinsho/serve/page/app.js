// The page as a whole: tabs, language, what the model is. Each tab is a module of its own.

import { get } from "./api.js";
import { startChat } from "./chat.js";
import { startClassify } from "./classify.js";
import { byId, moveWith } from "./dom.js";
import { startExtract } from "./extract.js";
import { setKinds } from "./kinds.js";
import { codePoints } from "./offsets.js";
import { startTokens } from "./tokens.js";
import { currentLanguage, number, say, setLanguage, t, translate } from "./words.js";

// until the server tells
const FALLBACK = { name: "", kinds: ["disease", "medicine", "value"], chat: true, window: null };

let about = FALLBACK;

function openTab(chosen) {
  for (const tab of tabs()) {
    const open = tab === chosen;
    tab.setAttribute("aria-selected", String(open));
    tab.tabIndex = open ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !open;
  }
}

function tabs() {
  return [...document.querySelectorAll("[role=tab]")];
}

function startTabs() {
  for (const tab of tabs()) tab.addEventListener("click", () => openTab(tab));
  const keys = { of: "[role=tab]", next: "ArrowRight", previous: "ArrowLeft", around: true };
  document.querySelector("[role=tablist]").addEventListener("keydown", moveWith(keys, tabs, openTab));
  const wanted = byId(`tab-${location.hash.slice(1)}`); // #chat opens the conversation
  if (wanted?.matches("[role=tab]")) openTab(wanted);
}

function startLanguage(changed) {
  const buttons = [...document.querySelectorAll("[data-language]")];
  const show = () => {
    document.documentElement.lang = currentLanguage();
    document.title = t("title");
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.language === currentLanguage()));
    }
    translate(document);
    showAbout();
    countAll();
    changed();
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      setLanguage(button.dataset.language);
      show();
    });
  }
  show();
}

function showAbout() {
  const facts = [about.name, about.form, about.runtime];
  if (about.parameters) facts.push(t("about.parameters", { n: short(about.parameters) }));
  if (about.window) facts.push(t("about.window", { n: about.window }));
  byId("about").textContent = byId("about").title = facts.filter(Boolean).join(" · ");
}

function short(count) {
  if (count >= 1e9) return `${number(count / 1e9, 1)} B`;
  return count >= 1e6 ? `${number(count / 1e6, 0)} M` : number(count);
}

function startCounts() {
  for (const span of document.querySelectorAll("[data-of]")) {
    byId(span.dataset.of).addEventListener("input", () => countOne(span));
  }
}

function countAll() {
  for (const span of document.querySelectorAll("[data-of]")) countOne(span);
}

function countOne(span) {
  const count = codePoints(byId(span.dataset.of).value);
  if (count) say(span, "characters", { n: count });
  else span.textContent = "";
}

/** The notice at the foot takes one line or several; what is fixed above it has to know. */
function watchFoot() {
  const foot = document.querySelector("footer");
  const tell = () => document.documentElement.style.setProperty("--foot", `${foot.offsetHeight}px`);
  new ResizeObserver(tell).observe(foot);
}

async function askAbout() {
  try {
    about = { ...FALLBACK, ...(await get("v1/about")) };
  } catch {
    about = FALLBACK; // the first question will say what is wrong
  }
  setKinds(about.kinds);
}

const views = [startExtract, startChat, startClassify, startTokens].map((start) => start(() => about));
watchFoot();
startTabs();
startCounts();
startLanguage(() => views.forEach((view) => view.languageChanged?.()));
await askAbout();
showAbout();
for (const view of views) view.aboutChanged?.();
