"use strict";
// Charts are drawn by Observable Plot in the colours of the style sheet, so that light, dark and paper need no redrawing.
const charts = (() => {
  const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "wye", "cross"];

  // A label that takes no more than so many ems: a Chinese character takes one, a Latin one about half.
  function cut(label, ems) {
    let width = 0;
    for (const [place, character] of [...label].entries()) {
      width += character > "\u2e80" ? 1 : 0.55;
      if (width > ems) return `${[...label].slice(0, place - 1).join("")}…`;
    }
    return label;
  }

  function legend(entries) {
    const list = element("ul", { class: "legend" });
    for (const { mark: name, symbol, label } of entries) {
      const shape = d3[`symbol${symbol[0].toUpperCase()}${symbol.slice(1)}`];
      const mark = d3.create("svg").attr("class", `mark-${name}`).attr("viewBox", "-7 -7 14 14").attr("aria-hidden", "true");
      mark.append("path").attr("d", d3.symbol(shape, 64)());
      list.append(element("li", {}, mark.node(), label));
    }
    return list;
  }

  function draw(holder, kinds) {
    const width = Math.max(260, Math.floor(holder.clientWidth));
    const chart = kinds[holder.dataset.chart]({ width, section: holder.dataset.section, holder });
    holder.replaceChildren();
    holder.hidden = chart === null;
    if (chart === null) return;
    const svg = Plot.plot({ width, className: "plot", style: { fontSize: "12px" }, ...chart.plot });
    // The style sheet has these rules already, and the page's policy lets no other in.
    svg.querySelectorAll("style").forEach((style) => style.remove());
    // To a screen reader it is one image with a text; parts without a role of their own may have no label.
    svg.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", chart.label);
    if (chart.onClick) {
      // Plot keeps what the pointer is at as the value of the chart.
      svg.classList.add("clickable");
      svg.addEventListener("click", () => svg.value && chart.onClick(svg.value));
    }
    if (chart.legend) holder.append(legend(chart.legend));
    holder.append(svg);
    if (chart.note) holder.append(element("p", { class: "muted" }, chart.note));
  }

  // Draw every chart of the page by its kind, now and whenever its width or the language changes.
  // A kind takes the width to draw in and what its element says of it, and returns {plot, label}, or null for nothing.
  function start(kinds) {
    const holders = document.querySelectorAll(".chart");
    const widths = new Map();
    const observer = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (widths.get(target) !== target.clientWidth) {
          widths.set(target, target.clientWidth);
          draw(target, kinds);
        }
      }
    });
    holders.forEach((holder) => observer.observe(holder));
    texts.onChange(() => holders.forEach((holder) => draw(holder, kinds)));
  }

  return { SYMBOLS, cut, draw, start };
})();
