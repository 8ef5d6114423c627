"use strict";
// What the reader chose holds for this tab, also on other pages from the same place, as far as the browser keeps it.
function remembered(name) {
  try {
    return sessionStorage.getItem(`bundle-${name}`);
  } catch {
    return null;
  }
}
function remember(name, value) {
  try {
    sessionStorage.setItem(`bundle-${name}`, value);
  } catch { /* it holds until the page is left */ }
  return value;
}

// In the head, so that a dark page is never shown light for a moment. The system decides until the button is used.
const theme = (() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = remembered("theme");

  function current() {
    return chosen ?? (system.matches ? "dark" : "light");
  }

  function apply() {
    root.dataset.theme = current();
    document.dispatchEvent(new Event("themechange"));
  }

  function toggle() {
    chosen = remember("theme", current() === "dark" ? "light" : "dark");
    apply();
  }

  system.addEventListener("change", apply);
  apply();
  return { current, toggle };
})();
