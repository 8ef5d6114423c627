"use strict";
// The board: tables of runs that can be sorted, filtered and turned to differences, and lines over training steps.
(() => {
  const OVERALL = "", RATE_WINDOW_S = 30;
  const holder = document.getElementById("tables");
  const shown = new Map();
  const seen = new Map();
  let now = data.now;

  // What the reader chose is kept in the address, so that it can be sent and survives a reload.
  const state = new URLSearchParams(location.hash.slice(1));
  function choose(name, value) {
    if (value) state.set(name, value);
    else state.delete(name);
    history.replaceState(null, "", `#${state}`);
    render();
  }
  const chosen = (name, otherwise) => state.get(name) ?? otherwise;

  const points = (value, digits = 2) => value.toFixed(digits);

  // Questions a second: over the last half minute as far as this page has seen it, else since asking began.
  function rate(run) {
    const history = seen.get(run.key) ?? [];
    const first = history.find(([when]) => now - when <= RATE_WINDOW_S);
    const done = run.answered + run.failed;
    if (first && now > first[0]) return (done - first[1]) / (now - first[0]);
    return run.since !== null && now > run.since ? done / (now - run.since) : null;
  }

  function note() {
    for (const table of data.tables) {
      for (const run of table.runs.filter(({ state }) => state === "running")) {
        run.key = `${table.title} ${run.run}`; // a run of several tasks is in several tables
        seen.set(run.key, [...(seen.get(run.key) ?? []).slice(-60), [now, run.answered + run.failed]]);
      }
    }
  }

  // ---- One table ----

  function value(run, column) {
    switch (column) {
      case "model": return label(run);
      case "began": return run.began;
      case "change": return run.changes[OVERALL]?.difference ?? null;
      default: {
        const key = column.slice("score:".length);
        return view() === "change" ? run.changes[key]?.difference ?? null : run.scores[key]?.[0] ?? null;
      }
    }
  }

  const mayBeBest = (run) => run.state === "done" && !run.partial && !run.doubtful && !run.incomparable;
  const view = () => chosen("view", "accuracy");
  const label = (run) => (run.series && !run.model.includes(run.series) ? `${run.series}/${run.model}` : run.model);

  function sorted(runs) {
    const wanted = chosen("sort", `-score:${OVERALL}`);
    const descending = wanted.startsWith("-");
    const column = descending ? wanted.slice(1) : wanted;
    const collator = new Intl.Collator([], { numeric: true });
    const compare = column === "model" ? collator.compare : d3.ascending;
    const going = (run) => run.state === "running";
    return d3.sort(runs, (one, other) => {
      if (going(one) !== going(other)) return going(one) ? -1 : 1;
      const [a, b] = [value(one, column), value(other, column)];
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
  }

  // A bar from low to high with a dot, on a scale; with a line at zero where that is within.
  function interval(low, at, high, [start, end], kind) {
    const place = (one) => (100 * (one - start)) / (end - start);
    const svg = d3.create("svg").attr("class", `interval ${kind}`).attr("viewBox", "0 0 100 10").attr("preserveAspectRatio", "none").attr("aria-hidden", "true");
    if (start < 0 && end > 0) svg.append("line").attr("class", "zero").attr("x1", place(0)).attr("x2", place(0)).attr("y1", 0).attr("y2", 10);
    svg.append("line").attr("class", "track").attr("x1", place(low)).attr("x2", place(high)).attr("y1", 5).attr("y2", 5);
    svg.append("line").attr("class", "at").attr("x1", place(at)).attr("x2", place(at)).attr("y1", 1).attr("y2", 9);
    svg.selectAll("line").attr("vector-effect", "non-scaling-stroke");
    return svg.node();
  }

  function scoreCell(run, column, best, scale) {
    const cell = element("td", { class: column.key === OVERALL ? "number wide-cell" : "number", "data-column": texts.name(column) });
    const [accuracy, low, high] = run.scores[column.key] ?? [];
    if (accuracy === undefined) {
      cell.append(element("span", { class: "muted" }, "–"));
    } else {
      const bold = mayBeBest(run) && best.get(column.key) === accuracy;
      cell.append(
        element("span", { class: bold ? "score best" : "score" }, points(accuracy)),
        interval(low, accuracy, high, scale, "neutral"),
        element("span", { class: "muted small" }, `${points(low, 1)}–${points(high, 1)}`));
    }
    return cell;
  }

  function changeCell(table, run, key, labelText, scale, wide) {
    const cell = element("td", { class: wide ? "number wide-cell" : "number", "data-column": labelText });
    const change = run.changes[key];
    if (run.run === table.base && wide) cell.append(element("span", { class: "tag" }, texts.text("board.base")));
    else if (!change && run.incomparable && wide) {
      cell.append(element("span", { class: "muted small why", title: run.incomparable }, texts.text("board.incomparable")));
    } else if (!change) cell.append(element("span", { class: "muted" }, "–"));
    else {
      const { difference, low, high, shown, between, p, standing } = change;
      const number = element("span", { class: `score change ${standing}` }, shown);
      cell.append(
        wide && run.comparison ? element("a", { href: run.comparison, class: "plain", title: texts.text("board.compare") }, number) : number,
        interval(low, difference, high, scale, standing),
        element("span", { class: "muted small" }, between));
      if (wide) {
        cell.append(element("span", { class: "muted small" }, `p ${p} · ${texts.text(`standing.${standing}`)}`));
      }
    }
    return cell;
  }

  function modelCell(run) {
    const cell = element("th", { scope: "row", class: "model" });
    const name = run.report ? element("a", { href: run.report }, label(run)) : label(run);
    cell.append(element("span", { class: "name" }, name));
    const tags = element("span", { class: "tags" });
    const tag = (key, kind, values) => tags.append(element("span", { class: `tag ${kind}` }, texts.text(key, values)), " ");
    if (run.state === "running") tag("state.running", "running");
    if (run.state === "cut off") tag("state.cut off", "warn");
    if (run.state === "incomplete" && run.total > run.answered) tag("board.unanswered", "warn", { n: texts.count(run.total - run.answered) });
    if (run.doubtful) tag("board.doubtful", "warn");
    for (const [key, values] of Object.entries(run.partial ?? {})) tag(`scope.${key}`, ["unlike", "sample_data"].includes(key) ? "warn" : "part", values);
    if (tags.childElementCount) cell.append(tags);
    cell.append(element("span", { class: "muted small run", title: run.run }, run.began));
    if (run.state === "running") cell.append(progress(run));
    return cell;
  }

  function progress(run) {
    const done = run.answered + run.failed, speed = data.live ? rate(run) : null;
    const parts = [`${texts.count(done)} / ${texts.count(run.total)}`];
    if (speed !== null) parts.push(texts.text("board.rate", { n: speed.toFixed(1) }));
    if (data.live && run.gpu !== null) parts.push(texts.text("board.gpu", { n: run.gpu.toFixed(0) }));
    if (run.failed) parts.push(texts.text("board.failed", { n: texts.count(run.failed) }));
    if (speed) parts.push(texts.text("board.left", { time: texts.duration((run.total - done) / speed) }));
    return element("span", { class: "progress" },
      element("progress", { max: run.total, value: done, "aria-label": texts.text("state.running") }),
      element("span", { class: "small" }, parts.join(" · ")));
  }

  function header(column, name, table, number) {
    const wanted = chosen("sort", `-score:${OVERALL}`);
    const order = wanted === column ? "ascending" : wanted === `-${column}` ? "descending" : "none";
    const button = element("button", { type: "button", "data-key": `${table.title} ${column}` }, name);
    button.addEventListener("click", () => {
      const first = column === "model" ? column : `-${column}`, second = column === "model" ? `-${column}` : column;
      choose("sort", wanted === first ? second : first);
    });
    return element("th", { scope: "col", class: number ? "number" : "", "aria-sort": order }, button);
  }

  function tableOf(table, runs) {
    const columns = table.columns;
    const different = view() === "change" && table.base !== null;
    const best = new Map(columns.map(({ key }) => {
      const whole = runs.filter((run) => run.scores[key] && mayBeBest(run));
      return [key, whole.length > 1 ? d3.max(whole, (run) => run.scores[key][0]) : null];
    }));
    const all = runs.flatMap((run) => columns.map(({ key }) => run.scores[key]).filter(Boolean));
    const scale = [d3.min(all, (one) => one[1]) ?? 0, d3.max(all, (one) => one[2]) ?? 100];
    const changes = runs.flatMap((run) => Object.values(run.changes));
    const furthest = d3.max(changes, (one) => Math.max(Math.abs(one.low), Math.abs(one.high))) ?? 1;
    const changeScale = [-furthest, furthest];
    const head = element("tr", {}, header("model", texts.text("board.model"), table, false));
    const [overall, ...groups] = columns;
    head.append(header(`score:${OVERALL}`, texts.name(overall), table, true));
    if (table.base !== null) head.append(header("change", texts.text("board.change"), table, true));
    for (const column of groups) head.append(header(`score:${column.key}`, texts.name(column), table, true));
    const body = element("tbody");
    for (const run of sorted(runs)) {
      const row = element("tr", { class: run.run === table.base ? "base" : "" }, modelCell(run), scoreCell(run, overall, best, scale));
      if (table.base !== null) row.append(changeCell(table, run, OVERALL, texts.text("board.change"), changeScale, true));
      for (const column of groups) {
        row.append(different ? changeCell(table, run, column.key, texts.name(column), changeScale, false) : scoreCell(run, column, best, scale));
      }
      body.append(row);
    }
    const caption = element("caption", { class: "unseen" }, `${table.title}: ${texts.text("board.caption")}`);
    return element("table", { class: "board" }, caption, element("thead", {}, head), body);
  }

  // ---- Lines over training steps ----

  function seriesOf(table) {
    const runs = table.runs.filter((run) => run.step !== null && !run.incomparable && ["done", "incomplete"].includes(run.state));
    const grouped = d3.groups(runs, (run) => run.series);
    // Of several runs of one checkpoint the newest counts; they come newest first.
    return grouped.map(([name, all]) => [name, d3.sort(d3.groups(all, (run) => run.step).map(([, same]) => same[0]), (run) => run.step)])
      .filter(([, all]) => all.length > 1).sort(([one], [other]) => d3.ascending(one, other));
  }

  const kinds = {
    steps: ({ holder }) => {
      const table = data.tables[Number(holder.dataset.section)];
      const column = table.columns.find(({ key }) => key === chosen("line", OVERALL)) ?? table.columns[0];
      const series = seriesOf(table);
      const rows = series.flatMap(([name, runs], place) => runs.filter((run) => run.scores[column.key]).map((run) => {
        const [accuracy, low, high] = run.scores[column.key];
        return { place, name: name || texts.text("board.checkpoints"), step: run.step, accuracy, low, high, run };
      }));
      if (!rows.length) return null;
      const base = table.runs.find((run) => run.run === table.base);
      const alone = base && !series.some(([, runs]) => runs.includes(base)) && base.scores[column.key];
      const colour = (row) => `var(--group-${row.place % charts.SYMBOLS.length})`;
      const symbol = (row) => charts.SYMBOLS[row.place % charts.SYMBOLS.length];
      const steps = [...new Set(rows.map((row) => row.step))].sort(d3.ascending);
      return {
        label: texts.text("chart.steps", { n: rows.length, column: texts.name(column) }),
        legend: series.map(([name], place) => ({ mark: place % charts.SYMBOLS.length, symbol: charts.SYMBOLS[place % charts.SYMBOLS.length], label: name || texts.text("board.checkpoints") })),
        plot: {
          height: 280, marginLeft: 44, marginRight: 24, marginTop: 18, marginBottom: 40,
          x: { label: texts.text("board.step"), labelAnchor: "center", labelArrow: "none", labelOffset: 36, nice: true, ticks: steps.length <= 8 ? steps : 6, tickFormat: (step) => texts.count(step), inset: 12 },
          y: { grid: true, label: null, nice: true, ticks: 5 },
          symbol: { type: "identity" },
          marks: [
            ...(alone ? [
              Plot.ruleY([alone[0]], { stroke: "var(--muted)", strokeDasharray: "4 3" }),
              Plot.text([alone[0]], { y: (one) => one, text: () => `${label(base)} ${points(alone[0], 1)}`, frameAnchor: "right", textAnchor: "end", dy: -8, fill: "var(--muted)" }),
            ] : []),
            Plot.areaY(rows, { x: "step", y1: "low", y2: "high", z: "name", fill: colour, fillOpacity: 0.12 }),
            Plot.lineY(rows, { x: "step", y: "accuracy", z: "name", stroke: colour, strokeWidth: 2 }),
            Plot.dot(rows, { x: "step", y: "accuracy", fill: colour, symbol, r: 4.5 }),
            Plot.tip(rows, Plot.pointer({
              x: "step", y: "accuracy", fill: "var(--surface)", stroke: "var(--line)",
              title: (row) => `${label(row.run)}\n${points(row.accuracy)} %  (${points(row.low, 1)} – ${points(row.high, 1)})`,
            })),
          ],
        },
      };
    },
  };

  // ---- The page ----

  function option(name, current, text, pressed) {
    const button = element("button", { type: "button", "aria-pressed": String(pressed), "data-key": `${name} ${current}` }, text);
    button.addEventListener("click", () => choose(name, current));
    return button;
  }

  function sectionOf(table, number) {
    const title = element("h2", { id: `table-${number}` }, table.title);
    const words = wordsOf(state.get("find") ?? "");
    const runs = table.runs.filter((run) => words.every((word) => `${label(run)} ${run.run}`.toLowerCase().includes(word)));
    const section = element("section", { class: "card", "aria-labelledby": title.id }, title);
    if (table.description.en) section.append(element("p", { class: "muted" }, texts.name(table.description)));
    if (table.secret) section.append(element("p", { class: "muted" }, texts.text("secret")));
    if (seriesOf(table).length) {
      const current = chosen("line", OVERALL);
      const columns = table.columns.map((column) => option("line", column.key, texts.name(column), column.key === current));
      section.append(element("div", { class: "segments", role: "group", "aria-label": texts.text("board.column") }, ...columns));
      const chart = element("div", { class: "chart", "data-chart": "steps", "data-section": number });
      section.append(chart);
    }
    const tools = element("div", { class: "tools" });
    if (table.base !== null) {
      tools.append(element("div", { class: "segments", role: "group", "aria-label": texts.text("board.view") },
        option("view", "", texts.text("board.accuracy"), view() === "accuracy"),
        option("view", "change", texts.text("board.changes"), view() === "change")));
    }
    const sort = element("select", { class: "sort", "aria-label": texts.text("board.sort"), "data-key": `${table.title} sort` },
      ...[["-score:", texts.text("board.best_first")], ["-change", texts.text("board.change")], ["-began", texts.text("board.newest_first")], ["model", texts.text("board.model")]]
        .filter(([key]) => key !== "-change" || table.base !== null)
        .map(([key, name]) => element("option", key === chosen("sort", "-score:") ? { value: key, selected: "" } : { value: key }, name)));
    sort.addEventListener("input", () => choose("sort", sort.value));
    tools.append(sort);
    if (table.runs.length > 6) {
      const find = element("input", { type: "search", placeholder: texts.text("board.find"), "aria-label": texts.text("board.find"), value: state.get("find") ?? "", "data-key": `${table.title} find`, spellcheck: "false" });
      find.addEventListener("input", () => choose("find", find.value));
      tools.append(find);
    }
    section.append(tools);
    section.append(element("div", { class: "wide", role: "group", tabindex: "0", "aria-label": table.title }, tableOf(table, runs)));
    if (table.base !== null) section.append(element("p", { class: "muted small" }, texts.text("board.meaning")));
    return section;
  }

  function notes() {
    const list = [];
    const says = (key, values) => list.push(element("p", { class: "notice", role: "note" }, texts.text(key, values)));
    if (!data.tables.length) says("board.empty");
    if (data.starting.length) says("board.starting", { n: data.starting.length, names: data.starting.join(", ") });
    for (const { run, fault } of data.damaged) says("board.damaged", { run, fault });
    if (data.never_asked.length) list.push(element("p", { class: "muted" }, texts.text("board.never_asked", { n: data.never_asked.length })));
    document.getElementById("notes").replaceChildren(...list);
  }

  function render() {
    const focused = document.activeElement?.dataset.key, place = document.activeElement?.selectionStart;
    const scrolled = [...holder.querySelectorAll(".wide")].map((one) => one.scrollLeft);
    notes();
    const runs = new Set(data.tables.flatMap((table) => table.runs.map((run) => run.run))).size;
    const going = data.tables.flatMap((table) => table.runs).filter((run) => run.state === "running").length;
    const when = new Date(now * 1000).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: data.live ? "medium" : "short" });
    document.getElementById("status").textContent = [
      texts.text("board.runs", { n: runs }),
      ...(going ? [texts.text("board.going_on", { n: going })] : []),
      texts.text(data.live ? "board.live" : "board.made", { when }),
    ].join(" · ");
    holder.replaceChildren(...data.tables.map(sectionOf));
    holder.querySelectorAll(".wide").forEach((one, number) => { one.scrollLeft = scrolled[number] ?? 0; });
    holder.querySelectorAll(".chart").forEach((one) => charts.draw(one, kinds));
    const again = focused && holder.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again) {
      again.focus({ preventScroll: true });
      if (place !== undefined && place !== null && again.setSelectionRange) again.setSelectionRange(place, place);
    }
  }

  note();
  texts.onChange(render);
  texts.apply();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) holder.querySelectorAll(".chart").forEach((one) => charts.draw(one, kinds));
    width = innerWidth;
  });
  if (data.live) poll("board.json", (latest) => {
    Object.assign(data, latest);
    now = data.now;
    note();
    document.body.classList.remove("lost");
    render();
  }, () => {
    document.body.classList.add("lost");
    document.getElementById("status").textContent = texts.text("board.lost");
  });
})();
