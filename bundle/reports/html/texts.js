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

// The lower-case words of what was typed to be found.
const wordsOf = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// Fill a list behind its first choice, which stands for all; what was chosen stays chosen.
function fillChoices(select, choices) {
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...choices.map(([value, name]) => element("option", { value }, name)));
  select.value = chosen;
}

// Ask the server for data again and again, until `found` returns false. Where reading takes long, it is done less
// often: the machine has other work.
function poll(address, found, lost) {
  const REFRESH_MS = 3000;
  async function ask() {
    const began = performance.now();
    try {
      const reply = await fetch(address);
      if (reply.ok && found(await reply.json()) === false) return;
    } catch {
      lost();
    }
    setTimeout(ask, Math.max(REFRESH_MS, 4 * (performance.now() - began)));
  }
  setTimeout(ask, REFRESH_MS);
}

// An element with attributes and children; a string among them becomes text, never markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
