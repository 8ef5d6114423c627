"use strict";
// The table of questions: only the rows of one page exist, and long texts are parsed when they are first needed.
const questions = (() => {
  const PAGE = matchMedia("(max-width: 46rem)").matches ? 20 : 50, EXCERPT = 160, LONG = 20000;
  const { visible, block, whole, questionOf, optionList, excerpt } = messages;
  const { part, id, outcome, answer, gold, characters, tokens, prompt_tokens, latency, attempts } = data.questions;
  const lengths = tokens.some((value) => value !== null) ? tokens : characters;
  const columns = { part, outcome, answer, gold, length: lengths, latency };
  const beginnings = JSON.parse(document.getElementById("beginnings").textContent);
  const form = document.getElementById("filters");
  const body = document.getElementById("rows");
  const chunks = new Map();
  let shown = d3.range(id.length);
  let page = 0;
  let sorting = { column: null, descending: false };

  // The long texts of a question.
  function textsOf(row) {
    const number = Math.floor(row / data.chunk);
    if (!chunks.has(number)) chunks.set(number, JSON.parse(document.getElementById(`chunk-${number}`).textContent));
    const [beginning, messages, reply, thinking, error, finish] = chunks.get(number)[row % data.chunk];
    return { beginning, messages, reply, thinking, error, finish };
  }

  // A subject's name, with its task and split where the run has several.
  const several = new Set(data.parts.map(({ task, split }) => `${task} ${split}`)).size > 1;
  function partName(one) {
    return several ? `${texts.name(one)} · ${one.task} ${one.split}` : texts.name(one);
  }

  function matches(row, words) {
    const { messages, reply, thinking, error } = textsOf(row);
    const { en, zh, split, task } = data.parts[part[row]];
    const all = [en, zh, split, task, id[row], answer[row], reply, thinking, error, ...messages.map((one) => whole(one[1]))];
    const text = all.join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  // What the reader chose is kept in the address: outcome, part, words, and a pair of letters, answer and gold.
  const FILTERS = ["outcome", "part", "words", "answer", "gold"];
  let wanted = {};
  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    wanted = Object.fromEntries(FILTERS.filter((name) => given.has(name)).map((name) => [name, given.get(name)]));
    form.elements.part.value = wanted.part ?? "";
    form.elements.words.value = wanted.words ?? "";
    return Object.keys(wanted).length > 0;
  }

  function choose(changes) {
    wanted = { ...wanted, ...changes };
    for (const name of FILTERS) if (wanted[name] === undefined || (wanted[name] === "" && name !== "answer")) delete wanted[name];
    history.replaceState(null, "", Object.keys(wanted).length ? `#${new URLSearchParams(wanted)}` : location.pathname + location.search);
    filter();
  }

  function filter() {
    const words = wordsOf(wanted.words ?? "");
    const here = d3.range(id.length).filter((row) =>
      (wanted.part === undefined || part[row] === Number(wanted.part)) &&
      (wanted.answer === undefined || answer[row] === wanted.answer) &&
      (wanted.gold === undefined || gold[row] === wanted.gold) &&
      (words.length === 0 || matches(row, words)));
    shown = here.filter((row) => wanted.outcome === undefined || data.outcomes[outcome[row]] === wanted.outcome);
    for (const chip of document.querySelectorAll(".chips button")) chip.setAttribute("aria-pressed", String(chip.dataset.outcome === (wanted.outcome ?? "")));
    const letters = document.getElementById("letters-chosen");
    letters.hidden = wanted.answer === undefined && wanted.gold === undefined;
    letters.textContent = [["gold", wanted.gold], ["answer", wanted.answer]].filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${texts.text(name)}: ${value || texts.text("none")}`).join(" · ");
    sort();
  }

  function sort() {
    const { column, descending } = sorting;
    if (column === null) {
      shown.sort((one, other) => outcome[one] - outcome[other] || one - other); // what went wrong comes first
    } else {
      const values = column === "part" ? part.map((place, row) => `${partName(data.parts[place])} ${id[row]}`) : columns[column];
      const compare = column === "part" ? new Intl.Collator([], { numeric: true }).compare : d3.ascending;
      // What is not known comes last, whichever way round.
      shown.sort((one, other) => {
        const [a, b] = [values[one], values[other]];
        if (a === null || b === null) return (a === null) - (b === null) || one - other;
        return (descending ? compare(b, a) : compare(a, b)) || one - other;
      });
    }
    page = 0;
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(rowElement));
    document.getElementById("found").textContent =
      shown.length ? texts.text("found", { n: texts.count(shown.length), all: texts.count(id.length) }) : texts.text("nothing_found");
    document.getElementById("page").textContent = texts.text("page", { page: page + 1, pages });
    document.getElementById("previous").disabled = page === 0;
    document.getElementById("next").disabled = page + 1 >= pages;
    for (const heading of document.querySelectorAll("th[data-sort]")) {
      const mine = heading.dataset.sort === sorting.column;
      heading.setAttribute("aria-sort", mine ? (sorting.descending ? "descending" : "ascending") : "none");
    }
  }

  function rowElement(row) {
    const name = data.outcomes[outcome[row]];
    const { messages, reply, error } = textsOf(row);
    const opener = element("button", { type: "button", class: "opener", "aria-expanded": "false", dir: "auto" },
      excerpt(questionOf(messages[messages.length - 1][1]), EXCERPT));
    const length = lengths[row] === null ? "–" : texts.count(lengths[row]);
    const seconds = latency[row] === null ? "–" : texts.text("seconds", { n: latency[row].toFixed(2) });
    const line = element("tr", { class: `${name} clickable` },
      element("th", { scope: "row", class: "column-question" }, opener,
        element("span", { class: "muted small excerpt", dir: "auto" }, excerpt(reply ?? error ?? "", EXCERPT))),
      element("td", { class: "column-part" }, `${partName(data.parts[part[row]])} #${id[row]}`),
      element("td", { class: "column-outcome" }, element("span", { class: `outcome ${name}` }, texts.text(`outcome.${name}`))),
      element("td", { class: "column-answer" }, excerpt(answer[row] || "–", EXCERPT)),
      element("td", { class: "column-gold" }, excerpt(gold[row] || "–", EXCERPT)),
      element("td", { class: "column-length" }, length),
      element("td", { class: "column-latency" }, seconds));
    let detail = null;
    line.addEventListener("click", () => {
      if (!getSelection().isCollapsed) return; // its text is being copied
      const open = opener.getAttribute("aria-expanded") === "true";
      opener.setAttribute("aria-expanded", String(!open));
      if (open) {
        detail.remove();
      } else {
        detail ??= element("tr", { class: "detail" }, element("td", { colspan: 7 }, ...detailOf(row)));
        line.after(detail);
      }
    });
    return line;
  }

  function detailOf(row) {
    const { beginning, messages, reply, thinking, error, finish } = textsOf(row);
    const conversation = [...messages];
    const examples = [...(beginnings[beginning] ?? [])];
    if (examples.length && examples[examples.length - 1][0] === conversation[0][0]) {
      // A beginning that is part of a message, as in a flat prompt, is shown with the rest of it.
      const [role, start] = examples.pop();
      conversation[0] = [role, start + whole(conversation[0][1])];
    }
    const asked = messages[messages.length - 1][1];
    const options = optionList(asked, gold[row], [{ letter: answer[row], label: texts.text("option.chosen") }]);
    const sent = options === null ? examples : [...examples, ...conversation];
    const parts = [];
    if (options !== null) parts.push(element("p", { class: "question", dir: "auto" }, visible(questionOf(asked))), options);
    else parts.push(...conversation.map(messageElement));
    if (thinking !== null) parts.push(block(texts.text("thinking"), thinking, "thinking"));
    if (reply !== null) parts.push(block(texts.text("reply"), reply, "reply"));
    if (error !== null) parts.push(block(texts.text("error"), error, "error"));
    if (sent.length) {
      const closed = element("details", {}, element("summary", {}, texts.text(options === null ? "shared" : "sent", { n: sent.length })));
      closed.addEventListener("toggle", () => closed.append(...sent.map(messageElement)), { once: true });
      parts.push(closed);
    }
    parts.push(factList(row, finish));
    return parts;
  }

  function factList(row, finish) {
    const list = element("dl", { class: "facts" });
    const add = (key, value) => value !== null && value !== "" &&
      list.append(element("div", {}, element("dt", {}, texts.text(key)), element("dd", {}, value)));
    add("answer", answer[row] === null ? null : answer[row] === "" ? texts.text("none") : visible(answer[row].slice(0, LONG)));
    add("gold", visible(gold[row].slice(0, LONG)));
    add("finish_reason", finish === null ? null : visible(finish));
    add("prompt_tokens", prompt_tokens[row] === null ? null : texts.count(prompt_tokens[row]));
    add("completion_tokens", tokens[row] === null ? null : texts.count(tokens[row]));
    add("latency", latency[row] === null ? null : latency[row].toFixed(2));
    add("attempts", attempts[row] === null ? null : String(attempts[row]));
    return list;
  }

  function messageElement([role, content]) {
    const known = `role.${role}` in data.texts;
    return block(known ? texts.text(`role.${role}`) : role, whole(content), role === "assistant" ? "assistant" : "user");
  }

  // Subjects in the order of the tasks.
  const fillSubjects = () => fillChoices(form.elements.part, data.parts.map((one, place) => [place, partName(one)]));

  function start() {
    let typing = null;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      const { name } = event.target;
      clearTimeout(typing);
      typing = setTimeout(() => choose({ [name]: form.elements[name].value }), name === "words" ? 150 : 0);
    });
    form.addEventListener("reset", () => setTimeout(() => choose({ outcome: undefined, part: undefined, words: undefined, answer: undefined, gold: undefined }), 0));
    for (const chip of document.querySelectorAll(".chips button")) chip.addEventListener("click", () => choose({ outcome: chip.dataset.outcome }));
    // Links such as those of the table of letters lead here.
    const follow = () => {
      if (!readAddress()) return;
      filter();
      document.getElementById("questions").scrollIntoView({ block: "start" });
    };
    addEventListener("hashchange", follow);
    for (const heading of document.querySelectorAll("th[data-sort]")) {
      heading.querySelector("button").addEventListener("click", () => {
        const column = heading.dataset.sort;
        // A third press brings what went wrong to the top again.
        if (sorting.column !== column) sorting = { column, descending: false };
        else sorting = sorting.descending ? { column: null, descending: false } : { column, descending: true };
        sort();
      });
    }
    const turn = (by) => () => {
      page += by;
      show();
      document.getElementById("questions").scrollIntoView({ block: "start" });
    };
    document.getElementById("previous").addEventListener("click", turn(-1));
    document.getElementById("next").addEventListener("click", turn(1));
    let first = true;
    texts.onChange(() => {
      fillSubjects();
      if (first && readAddress()) setTimeout(follow, 0);
      first = false;
      filter();
    });
  }

  return { start };
})();
