"use strict";
// The questions that changed: filtered, a few at a time, each with both replies when it is opened.
(() => {
  const STEP = 20, EXCERPT = 160;

  function listOf(holder) {
    const number = Number(holder.dataset.flips);
    const { flips, model } = data.comparisons[number];
    const form = holder.querySelector("form"), list = holder.querySelector("ol"), more = holder.querySelector(".more"), found = holder.querySelector("[role=status]");
    let shown = STEP;
    const state = new URLSearchParams(location.hash.slice(1));

    function matching() {
      const wanted = new FormData(form);
      const words = wordsOf(wanted.get("words"));
      return flips.filter((flip) => {
        const question = data.questions[flip.q];
        if (wanted.get("part") !== "" && question.part !== Number(wanted.get("part"))) return false;
        if (wanted.get("kind") !== "" && wanted.get("kind") !== (flip.lost ? "lost" : "won")) return false;
        if (!words.length) return true;
        const { en, zh } = data.parts[question.part];
        const text = [en, zh, messages.whole(question.content), question.reply, flip.reply].join("\n").toLowerCase();
        return words.every((word) => text.includes(word));
      });
    }

    function lineOf(flip) {
      const question = data.questions[flip.q], kind = flip.lost ? "lost" : "won";
      const says = (answer) => messages.visible(answer || texts.text("none"));
      const summary = element("summary", {},
        element("span", { class: `outcome ${kind}` }, texts.text(`flip.${kind}`)),
        element("span", { class: "flip-text", dir: "auto" }, messages.excerpt(messages.questionOf(question.content), EXCERPT)),
        element("span", { class: "muted flip-where" }, `${texts.name(data.parts[question.part])} #${question.id}`),
        element("span", { class: "flip-answers" }, says(question.answer), " → ", says(flip.answer), element("span", { class: "muted" }, ` (${texts.text("gold")} `, messages.visible(question.gold), ")")));
      const details = element("details", { class: "flip" }, summary);
      details.addEventListener("toggle", () => details.append(detailOf(flip)), { once: true });
      return element("li", {}, details);
    }

    function detailOf(flip) {
      const question = data.questions[flip.q];
      const base = texts.text("compare.base_named", { model: data.base }), now = texts.text("compare.new_named", { model });
      const options = messages.optionList(question.content, question.gold, [{ letter: question.answer, label: base }, { letter: flip.answer, label: now }]);
      const asked = options === null
        ? [messages.block(texts.text("compare.question"), messages.whole(question.content), "user")]
        : [options];
      // The line above has the beginning of the question, and of most all of it.
      if (options !== null && messages.questionOf(question.content).length > EXCERPT) {
        asked.unshift(element("p", { class: "question", dir: "auto" }, messages.visible(messages.questionOf(question.content))));
      }
      return element("div", { class: "flip-detail" }, ...asked,
        element("div", { class: "columns replies" }, messages.block(base, question.reply, "reply"), messages.block(now, flip.reply, "reply")));
    }

    function show() {
      const all = matching();
      found.textContent = all.length ? texts.text("found", { n: texts.count(all.length), all: texts.count(flips.length) }) : texts.text("nothing_found");
      list.replaceChildren(...all.slice(0, shown).map(lineOf));
      more.hidden = all.length <= shown;
      more.textContent = texts.text("compare.more", { n: Math.min(STEP, all.length - shown) });
    }

    const there = new Set(flips.map((flip) => data.questions[flip.q].part));
    const subjects = data.parts.map((one, place) => [place, one]).filter(([place]) => there.has(place));
    const fillSubjects = () => fillChoices(form.elements.part, subjects.map(([place, one]) => [place, texts.name(one)]));

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      shown = STEP;
      for (const name of ["part", "kind", "words"]) {
        const value = form.elements[name].value;
        if (value) state.set(name, value);
        else state.delete(name);
      }
      history.replaceState(null, "", `#${state}`);
      show();
    });
    more.addEventListener("click", () => {
      const before = shown;
      shown += STEP;
      show();
      list.children[before]?.querySelector("summary").focus();
    });
    fillSubjects();
    // A single list of flips keeps its filters in the address.
    if (data.comparisons.length === 1) for (const name of ["part", "kind", "words"]) form.elements[name].value = state.get(name) ?? "";
    texts.onChange(() => { fillSubjects(); show(); });
  }

  document.querySelectorAll("[data-flips]").forEach(listOf);
  texts.apply();
})();
