"use strict";
// The buttons for language and theme, which every page has.
(() => {
  const language = document.getElementById("language");
  const dark = document.getElementById("theme");

  function nameSwitches() {
    language.textContent = texts.text("switch_language");
    language.lang = language.textContent === "中文" ? "zh-Hans" : "en";
    dark.textContent = texts.text(theme.current() === "dark" ? "to_light" : "to_dark");
  }

  language.addEventListener("click", texts.toggle);
  dark.addEventListener("click", theme.toggle);
  document.addEventListener("themechange", nameSwitches);
  texts.onChange(nameSwitches);
})();
