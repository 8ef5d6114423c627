"use strict";
// The charts of a run's page.
const reportCharts = (() => {
  const INK = "var(--ink)", MUTED = "var(--muted)", ACCENT = "var(--accent)";
  const { SYMBOLS, cut } = charts;
  const PERCENT = { domain: [0, 100], grid: true, ticks: 5, label: null };
  const short = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1));
  const points = (value) => value.toFixed(1);

  const kinds = {
    groups: ({ width, section }) => {
      const { groups, overall } = data.sections[section];
      const lines = groups.filter((line) => line.accuracy !== null);
      if (!lines.length) return null;
      const all = overall.accuracy === null ? [] : [{ ...overall, group: null }];
      const rows = [...all, ...lines].map((line) => ({ ...line, label: texts.name(line) }));
      return {
        label: texts.text("chart.groups", { n: rows.length }),
        plot: {
          marginLeft: 110, marginRight: 52, marginTop: 4, height: 32 * rows.length + 34,
          x: PERCENT,
          y: { domain: rows.map((row) => row.label), label: null, tickSize: 0, padding: 0.3 },
          marks: [
            Plot.barX(rows, { x: "accuracy", y: "label", fill: (row) => colour(section, row.group), fillOpacity: 0.8, rx2: 3 }),
            Plot.ruleY(rows, { x1: "low", x2: "high", y: "label", stroke: INK, strokeWidth: 1.5 }),
            Plot.tickX(rows, { x: "low", y: "label", stroke: INK, insetTop: 7, insetBottom: 7 }),
            Plot.tickX(rows, { x: "high", y: "label", stroke: INK, insetTop: 7, insetBottom: 7 }),
            values(rows, "label"),
          ],
        },
      };
    },

    subjects: ({ width, section }) => {
      const { subjects, overall, marks, chance } = data.sections[section];
      const rows = subjects.filter((line) => line.accuracy !== null).map((line) => ({ ...line, label: texts.name(line) }));
      if (!rows.length) return null;
      const stroke = (row) => colour(section, row.group);
      const symbol = (row) => SYMBOLS[place(section, row.group) % SYMBOLS.length];
      const narrow = width < 560;
      // Where names would be cut, each stands above its line.
      const above = narrow && rows.some((row) => cut(row.label, 8.6) !== row.label);
      const lines = [];
      if (chance !== null) lines.push({ at: chance, label: texts.text(narrow ? "chance_short" : "chance_line") });
      if (overall.accuracy !== null) lines.push({ at: overall.accuracy, label: texts.text("mean_line", { value: points(overall.accuracy) }) });
      lines.sort((one, other) => one.at - other.at);
      // One to the left and one to the right of its line, so that they never meet.
      const captions = lines.map((line, number) => Plot.text([line], {
        x: "at", text: "label", frameAnchor: "top", dy: -22, fill: MUTED,
        textAnchor: number === 0 && lines.length > 1 ? "end" : line.at > 80 ? "end" : "start",
      }));
      return {
        label: texts.text("chart.subjects", {
          n: rows.length,
          high: points(rows[0].accuracy), best: rows[0].label,
          low: points(rows[rows.length - 1].accuracy), worst: rows[rows.length - 1].label,
        }),
        legend: marks.length > 1 ? marks.map((mark) => ({ mark: place(section, mark.group) % SYMBOLS.length, symbol: SYMBOLS[place(section, mark.group) % SYMBOLS.length], label: texts.name(mark) })) : null,
        plot: {
          marginLeft: above ? 12 : narrow ? 118 : 284, marginRight: 52, marginTop: 34, height: (above ? 34 : 19) * rows.length + 64,
          x: PERCENT,
          y: { domain: rows.map((row) => row.label), label: null, ...(above ? { axis: null } : {}) },
          symbol: { type: "identity" },
          marks: [
            Plot.gridY({ strokeOpacity: 0.06 }),
            Plot.ruleX(lines, { x: "at", stroke: MUTED, strokeDasharray: "4 3" }),
            ...captions,
            above
              ? Plot.text(rows, { y: "label", text: "label", frameAnchor: "left", textAnchor: "start", dy: -14, fill: MUTED, stroke: "var(--surface)", strokeWidth: 5 })
              : Plot.axisY({ tickSize: 0, tickFormat: (label) => cut(label, narrow ? 8.6 : 23) }),
            Plot.ruleY(rows, { x1: "low", x2: "high", y: "label", stroke, strokeWidth: 2, strokeOpacity: 0.45 }),
            Plot.dot(rows, { x: "accuracy", y: "label", fill: stroke, symbol, r: 4.5, className: "subject" }),
            values(rows, "label"),
            Plot.tip(rows, Plot.pointerY({
              x: "accuracy", y: "label", fill: "var(--surface)", stroke: "var(--line)",
              title: (row) => `${row.label}\n${points(row.accuracy)} %  (${points(row.low)} – ${points(row.high)})\n${row.answered} / ${row.n}`,
            })),
          ],
        },
        // A subject's questions are a click away; the table below has links for the keyboard.
        onClick: (row) => {
          const { task, split } = data.sections[section];
          location.hash = `part=${data.parts.findIndex((one) => one.task === task && one.split === split && one.en === row.en)}`;
        },
      };
    },

    letters: ({ section }) => {
      const { options, answers, golds } = data.sections[section].letters;
      const kindsOfBar = golds.some((n) => n > 0) ? [["answers_right", golds], ["answers_given", answers]] : [["answers_given", answers]];
      const rows = kindsOfBar.flatMap(([key, counts]) =>
        options.map((option, place) => ({ kind: texts.text(key), option: option || texts.text("none"), n: counts[place] })));
      const domain = kindsOfBar.map(([key]) => texts.text(key));
      return {
        label: texts.text("chart.letters"),
        legend: domain.length === 1 ? null : domain.map((label, number) => ({ mark: ["gold", "answered"][number], symbol: "square", label })),
        plot: {
          height: 230, marginTop: 22, marginLeft: 44,
          fx: { domain: options.map((option) => option || texts.text("none")), label: null, padding: 0.25 },
          x: { domain, axis: null, padding: 0.08 },
          y: { grid: true, label: null, ticks: 4, tickFormat: d3.format("~s"), nice: true },
          marks: [
            Plot.barY(rows, { fx: "option", x: "kind", y: "n", ry2: 2, fill: (row) => (row.kind === texts.text("answers_given") ? ACCENT : "var(--gold)") }),
            Plot.text(rows, { fx: "option", x: "kind", y: "n", text: (row) => texts.count(row.n), dy: -7, fill: INK, fontSize: 10 }),
            Plot.ruleY([0], { stroke: MUTED }),
          ],
        },
      };
    },

    tokens: () => histogram(data.questions.tokens, "tokens"),
    characters: () => histogram(data.questions.characters, "characters"),
    latency: () => histogram(data.questions.latency, "latency"),

    // Bins of equal numbers of replies, so the places are ranks, named by their lengths.
    by_length: ({ width }) => {
      const range = ({ low, high }) =>
        low === high ? texts.count(low) : width < 600 ? `${texts.count(low)}+` : `${texts.count(low)}–${texts.count(high)}`;
      const rows = data.by_length.bins.map((bin) => ({ ...bin, label: range(bin) }));
      return {
        label: texts.text("chart.by_length", { n: rows.length }),
        plot: {
          height: 235, marginTop: 24, marginLeft: 44, marginBottom: 44,
          x: { type: "point", domain: rows.map((row) => row.label), padding: 0.5, label: texts.text(data.by_length.unit), labelAnchor: "center", labelArrow: "none", labelOffset: 38 },
          y: { ...PERCENT, tickFormat: (value) => `${value} %` },
          marks: [
            Plot.ruleX(rows, { x: "label", y1: "from", y2: "to", stroke: MUTED, strokeWidth: 1.5 }),
            Plot.dot(rows, { x: "label", y: "accuracy", r: 4.5, fill: ACCENT }),
            Plot.text(rows, { x: "label", y: "to", dy: -9, text: (row) => `n ${texts.count(row.n)}`, fill: MUTED, fontSize: 10 }),
            Plot.ruleY([0], { stroke: MUTED }),
          ],
        },
      };
    },

    pace: () => overTime("rate", "pace"),
    in_flight: () => overTime("in_flight", "in_flight"),
    gpu: () => ofGpus("utilization", "gpu", [0, 100]),
    gpu_memory: () => ofGpus("used", "gpu_memory", [0, d3.max(data.gpus, (one) => one.memory ?? one.most)]),

    timing: () => {
      const rows = data.timing.map((one) => ({ ...one, label: texts.text(`phase.${one.phase}`) }));
      if (!rows.length) return null;
      return {
        label: texts.text("chart.timing"),
        plot: {
          marginLeft: 180, marginRight: 60, marginTop: 4, height: 30 * rows.length + 34,
          x: { grid: true, label: null, ticks: 4, tickFormat: (value) => `${value} s` },
          y: { domain: rows.map((row) => row.label), label: null, padding: 0.3 },
          marks: [
            Plot.axisY({ tickSize: 0, tickFormat: (label) => cut(label, 14) }),
            Plot.barX(rows, { x: "seconds", y: "label", fill: ACCENT, fillOpacity: 0.85, rx2: 3 }),
            Plot.text(rows, { x: "seconds", y: "label", text: "shown", textAnchor: "start", dx: 5, fill: INK }),
          ],
        },
      };
    },
  };

  // A group has the same colour and shape in every task: known ones have places of their own, others follow.
  const KNOWN = ["stem", "social-science", "humanities", "other", "china-specific"];
  function place(section, group) {
    if (KNOWN.includes(group)) return KNOWN.indexOf(group);
    const others = data.sections[section].marks.map((mark) => mark.group).filter((name) => !KNOWN.includes(name));
    const before = others.length === data.sections[section].marks.length ? 0 : KNOWN.length;
    return before + Math.max(0, others.indexOf(group));
  }

  function colour(section, group) {
    if (group === null) return INK;
    const known = group === "" || data.sections[section].marks.some((mark) => mark.group === group);
    return known ? `var(--group-${place(section, group) % SYMBOLS.length})` : MUTED;
  }

  // The accuracies, at the right edge.
  function values(rows, y) {
    return Plot.text(rows, { y, text: (row) => points(row.accuracy), frameAnchor: "right", textAnchor: "end", dx: 44, fill: INK, className: "value" });
  }

  // What charts over the time of asking share, with a scale of seconds, minutes or hours.
  function timeOfAsking(y, marks) {
    const seconds = data.pace.width * data.pace.rate.length;
    const [unit, key] = seconds > 7200 ? [3600, "hours"] : seconds > 300 ? [60, "minutes"] : [1, "latency"];
    const breaks = data.pace.breaks.map((place) => place / unit);
    return {
      note: breaks.length ? texts.text("breaks", { n: breaks.length }) : null,
      plot: {
        height: 200, marginTop: 12, marginLeft: 44, marginBottom: 40,
        x: { domain: [0, seconds / unit], ticks: 6, label: texts.text(key), labelAnchor: "center", labelArrow: "none", labelOffset: 34 },
        y: { grid: true, label: null, ticks: 4, ...y },
        marks: [...marks(unit), Plot.ruleX(breaks, { stroke: INK, strokeDasharray: "4 3" }), Plot.ruleY([0], { stroke: MUTED })],
      },
    };
  }

  function overTime(column, key) {
    const rows = (data.pace?.[column] ?? []).map((value, place) => ({ value, begin: place, end: place + 1 })).filter((row) => row.value !== null);
    if (!rows.length) return null;
    const bars = (unit) => Plot.rectY(rows, {
      x1: (row) => row.begin * data.pace.width / unit, x2: (row) => row.end * data.pace.width / unit, y: "value", fill: ACCENT, fillOpacity: 0.85, inset: 0.5,
    });
    return {
      ...timeOfAsking({ nice: true, zero: true }, (unit) => [bars(unit)]),
      label: texts.text(`chart.${key}`, { most: short(d3.max(rows, (row) => row.value)) }),
    };
  }

  function ofGpus(column, key, domain) {
    const gpus = data.gpus.filter((one) => one[column].length);
    if (!gpus.length || data.pace === null) return null;
    const rows = gpus.flatMap((one, place) => one[column].map(([at, value]) => ({ at, value, place, gpu: one.gpu })));
    const colour = (row) => (gpus.length > 1 ? `var(--group-${row.place % SYMBOLS.length})` : ACCENT);
    const says = ({ mean, most, memory }) =>
      column === "utilization" ? texts.text("gpu.mean", { mean })
        : memory === null ? texts.text("gpu.used", { most: points(most) }) : texts.text("gpu.used_of", { most: points(most), memory: points(memory) });
    const alone = gpus.length === 1;
    return {
      ...timeOfAsking({ domain, tickFormat: (value) => (column === "utilization" ? `${value} %` : value) }, (unit) => [
        ...(alone ? [Plot.areaY(rows, { x: (row) => row.at / unit, y: "value", fill: ACCENT, fillOpacity: 0.18 })] : []),
        Plot.lineY(rows, { x: (row) => row.at / unit, y: "value", z: "gpu", stroke: colour, strokeWidth: 1.8 }),
        ...(rows.length <= 40 * gpus.length ? [Plot.dot(rows, { x: (row) => row.at / unit, y: "value", r: 2.2, fill: colour })] : []),
      ]),
      label: `${texts.text(`chart.${key}`)} ${gpus.map((one) => `GPU ${one.gpu}: ${says(one)}`).join("; ")}`,
      legend: alone ? null : gpus.map((one, place) => ({ mark: place % SYMBOLS.length, symbol: "circle", label: `GPU ${one.gpu}: ${says(one)}` })),
      note: alone ? says(gpus[0]) : null,
    };
  }

  function histogram(column, unit) {
    const outcomes = data.questions.outcome;
    const replied = (place) => !["failed", "unasked"].includes(data.outcomes[outcomes[place]]);
    const numbers = column.filter((value, place) => value !== null && replied(place));
    if (!numbers.length) return null;
    // A few that took very long would press all others into one bar.
    const ranked = d3.sort(numbers), most = ranked.at(-1);
    const quantile = (percent) => ranked[Math.ceil((percent * ranked.length) / 100) - 1]; // as in the table below
    const end = quantile(99);
    const drawn = most > 2 * end ? numbers.filter((value) => value <= end) : numbers;
    const median = quantile(50);
    const few = new Set(drawn).size <= 12 && d3.max(drawn) <= 40 && drawn.every(Number.isInteger);
    const whole = few ? [Math.max(0, d3.min(drawn) - 2), d3.max(drawn) + 2] : null;
    const x = few
      ? { domain: [whole[0] - 0.5, whole[1] + 0.5], ticks: d3.ticks(...whole, 8).filter(Number.isInteger), tickFormat: "d" }
      : { ticks: 6 };
    return {
      label: texts.text("chart.histogram", { n: numbers.length }),
      note: drawn.length < numbers.length ? texts.text("beyond", { n: texts.count(numbers.length - drawn.length), value: short(end) }) : null,
      plot: {
        height: 235, marginTop: 28, marginLeft: 44, marginBottom: 44,
        x: { label: texts.text(unit), labelAnchor: "center", labelArrow: "none", labelOffset: 38, ...x },
        y: { grid: true, label: null, ticks: 4, tickFormat: d3.format("~s") },
        marks: [
          Plot.rectY(drawn, Plot.binX({ y: "count" }, { x: Plot.identity, thresholds: few ? d3.range(whole[0] - 0.5, whole[1] + 1) : 32, fill: ACCENT, fillOpacity: 0.85, inset: 0.5 })),
          Plot.ruleX([median], { stroke: INK, strokeDasharray: "4 3" }),
          Plot.text([median], { x: Plot.identity, frameAnchor: "top", dy: -16, text: () => texts.text("median_line", { value: short(median) }), fill: INK }),
          Plot.ruleY([0], { stroke: MUTED }),
        ],
      },
    };
  }

  return kinds;
})();
