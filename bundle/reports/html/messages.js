"use strict";
// What was asked and replied, as text: never markup, and with nothing in it that cannot be seen.
const messages = (() => {
  const LONG = 20000;

  // Text with what nobody would see in it (control characters, bidirectional marks, half characters) written out.
  const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff\u{e0000}-\u{e007f}]/gu;
  function visible(text) {
    const made = document.createDocumentFragment();
    let end = 0;
    for (const match of text.matchAll(UNSEEN)) {
      const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      made.append(text.slice(end, match.index), element("span", { class: "unseen-character" }, `U+${code}`));
      end = match.index + match[0].length;
    }
    made.append(text.slice(end));
    return made;
  }

  // A text in a box; a very long one is cut, because laying it out would take the browser seconds.
  function block(name, content, kind) {
    const text = element("pre", { dir: "auto", tabindex: "0", role: "group", "aria-label": name });
    text.append(content === "" ? element("span", { class: "muted" }, texts.text("empty")) : visible(content.slice(0, LONG)));
    const made = element("div", { class: `message ${kind}` }, element("p", { class: "role" }, name), text);
    if (content.length > LONG) {
      const more = element("button", { type: "button" }, texts.text("show_all", { n: texts.count(content.length) }));
      more.addEventListener("click", () => {
        text.replaceChildren(visible(content));
        more.remove();
        text.focus();
      });
      made.append(more);
    }
    return made;
  }

  // A message is its text, or the pieces of it, each with the name of its column: the question, an option, or "".
  const whole = (content) => (typeof content === "string" ? content : content.map(([, text]) => text).join(""));
  const questionOf = (content) => (typeof content === "string" ? content : (content.find(([name]) => name === "question") ?? content[0])[1]).trim();

  // The question with its options, the right one and those that were chosen marked; null where it has none.
  // Each choice is {letter, label, kind}.
  function optionList(content, gold, choices) {
    const options = typeof content === "string" ? [] : content.filter(([name]) => name.length === 1);
    if (options.length < 2) return null;
    const list = element("ul", { class: "options" });
    for (const [letter, text] of options) {
      const right = gold.includes(letter);
      const tags = choices.filter((one) => one.letter && one.letter.includes(letter));
      const line = element("li", { class: right ? "right" : tags.length ? "wrong" : "" }, element("b", {}, letter), " ", element("span", { dir: "auto" }, visible(text.trim())));
      if (right) line.append(" ", element("span", { class: "outcome right" }, `✓ ${texts.text("option.right")}`));
      for (const one of tags) line.append(" ", element("span", { class: `outcome ${right ? "right" : "wrong"}` }, one.label));
      list.append(line);
    }
    return list;
  }

  // One line's worth of a text.
  const excerpt = (text, length) => visible(text.slice(0, length).replace(/\s+/g, " "));

  return { visible, block, whole, questionOf, optionList, excerpt };
})();
