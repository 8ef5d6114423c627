"use strict";
// In the head, so that a dark page is never shown light for a moment. The system decides until the button is used.
const theme = (() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;

  function current() {
    return chosen ?? (system.matches ? "dark" : "light");
  }

  function apply() {
    root.dataset.theme = current();
    document.dispatchEvent(new Event("themechange"));
  }

  function toggle() {
    chosen = current() === "dark" ? "light" : "dark";
    apply();
  }

  system.addEventListener("change", apply);
  apply();
  return { current, toggle };
})();
