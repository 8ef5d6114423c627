"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// The page's own words: every element that has a key is given its text in the language that is chosen.
const texts = (() => {
  const listeners = [];
  let language = remembered("language") ?? data.language ?? preferred();

  // Of the languages the reader's browser asks for, the first that this page has.
  function preferred() {
    const known = navigator.languages.map((one) => one.slice(0, 2).toLowerCase());
    return known.find((one) => one === "zh" || one === "en") ?? "en";
  }

  function text(key, values = {}) {
    return data.texts[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  // A name that is known in both languages, as {en, zh}.
  function name(both) {
    return both[language];
  }

  function count(number) {
    return number.toLocaleString("en-US");
  }

  function duration(seconds) {
    const minutes = Math.ceil(seconds / 60);
    return minutes < 60 ? text("board.minutes", { n: minutes }) : text("board.hours", { n: (minutes / 60).toFixed(1) });
  }

  function apply() {
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    for (const element of document.querySelectorAll("[data-text]")) {
      element.textContent = text(element.dataset.text, JSON.parse(element.dataset.values ?? "{}"));
    }
    for (const element of document.querySelectorAll("[data-label]")) {
      element.setAttribute("aria-label", text(element.dataset.label));
    }
    for (const element of document.querySelectorAll("[data-en]")) {
      element.textContent = element.dataset[language];
    }
    for (const listener of listeners) listener();
  }

  function toggle() {
    language = remember("language", language === "zh" ? "en" : "zh");
    apply();
  }

  return { text, name, count, duration, apply, toggle, onChange: (listener) => listeners.push(listener) };
})();

// An element with attributes and children; a string among them becomes text, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
