"use strict";
// The table of questions: only the rows of one page exist, and long texts are parsed when they are first needed.
const questions = (() => {
  const PAGE = 50, EXCERPT = 120, LONG = 20000;
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
    const all = [en, zh, split, task, id[row], answer[row], reply, thinking, error, ...(messages ?? []).map((one) => one[1])];
    const text = all.join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function filter() {
    const wanted = new FormData(form);
    const words = wanted.get("words").toLowerCase().split(/\s+/).filter(Boolean);
    shown = d3.range(id.length).filter((row) =>
      (wanted.get("part") === "" || part[row] === Number(wanted.get("part"))) &&
      (wanted.get("outcome") === "" || data.outcomes[outcome[row]] === wanted.get("outcome")) &&
      (words.length === 0 || matches(row, words)));
    sort();
  }

  function sort() {
    const { column, descending } = sorting;
    if (column === null) {
      shown.sort(d3.ascending);
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
    const { reply, error } = textsOf(row);
    const opener = element("button", { type: "button", class: "opener", "aria-expanded": "false" }, `${partName(data.parts[part[row]])} #${id[row]}`);
    const length = lengths[row] === null ? "" : texts.count(lengths[row]);
    const seconds = latency[row] === null ? "" : texts.text("seconds", { n: latency[row].toFixed(2) });
    const excerpt = visible((reply ?? error ?? "").slice(0, EXCERPT).replace(/\s+/g, " "));
    const line = element("tr", { class: name },
      element("th", { scope: "row", class: "column-part" }, opener),
      element("td", { class: "column-outcome" }, element("span", { class: `outcome ${name}` }, texts.text(`outcome.${name}`))),
      element("td", { class: "column-answer" }, visible((answer[row] || "–").slice(0, EXCERPT))),
      element("td", { class: "column-gold" }, visible((gold[row] || "–").slice(0, EXCERPT))),
      element("td", { class: "column-length" }, length),
      element("td", { class: "column-latency" }, seconds),
      element("td", { class: "column-reply" }, excerpt));
    let detail = null;
    opener.addEventListener("click", () => {
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
    const parts = [];
    const conversation = [...(messages ?? [])];
    const examples = [...(beginnings[beginning] ?? [])];
    if (examples.length && conversation.length && examples[examples.length - 1][0] === conversation[0][0]) {
      // A beginning that is part of a message, as in a flat prompt, is shown with the rest of it.
      const [role, start] = examples.pop();
      conversation[0] = [role, start + conversation[0][1]];
    }
    if (examples.length) {
      const closed = element("details", {}, element("summary", {}, texts.text("shared", { n: examples.length })));
      closed.addEventListener("toggle", () => closed.append(...examples.map(messageElement)), { once: true });
      parts.push(closed);
    }
    parts.push(...conversation.map(messageElement));
    if (thinking !== null) parts.push(block(texts.text("thinking"), thinking, "thinking"));
    if (reply !== null) parts.push(block(texts.text("reply"), reply, "reply"));
    if (error !== null) parts.push(block(texts.text("error"), error, "error"));
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
    return block(known ? texts.text(`role.${role}`) : role, content, role === "assistant" ? "assistant" : "user");
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

  // Subjects in the order of the tasks.
  function fillSubjects() {
    const select = form.elements.part;
    const chosen = select.value;
    while (select.options.length > 1) select.remove(1);
    data.parts.forEach((one, place) => select.append(element("option", { value: place }, partName(one))));
    select.value = chosen;
  }

  function start() {
    let typing = null;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      clearTimeout(typing);
      typing = setTimeout(filter, event.target.name === "words" ? 150 : 0);
    });
    form.addEventListener("reset", () => setTimeout(filter, 0));
    for (const heading of document.querySelectorAll("th[data-sort]")) {
      heading.querySelector("button").addEventListener("click", () => {
        const column = heading.dataset.sort;
        // A third press brings the order of the task back.
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
    texts.onChange(() => {
      fillSubjects();
      sort();
    });
  }

  return { start };
})();
