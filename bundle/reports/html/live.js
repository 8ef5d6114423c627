"use strict";
// The page of a run that goes on: how far it is and how fast, asked for again and again; the rest is as it was made.
const live = (() => {
  const REFRESH_MS = 3000;
  const byId = (name) => document.getElementById(`live-${name}`);

  function show() {
    const { total, answered, failed, scored, right, rate } = data.live;
    const done = answered + failed;
    byId("count").textContent = texts.text("live.count", { done: texts.count(done), total: texts.count(total) });
    byId("progress").value = done;
    const parts = [];
    if (rate) parts.push(texts.text("board.rate", { n: rate.toFixed(1) }), texts.text("board.left", { time: texts.duration((total - done) / rate) }));
    if (scored) parts.push(texts.text("live.right", { percent: (100 * right / scored).toFixed(1), n: texts.count(scored) }));
    if (failed) parts.push(texts.text("board.failed", { n: texts.count(failed) }));
    byId("says").textContent = parts.join(" · ");
  }

  // A reader who is in the middle of something is not torn out of it.
  const isBusy = () => document.querySelector("#rows .detail") !== null || document.activeElement?.closest("input, select, pre") != null;

  function end() {
    if (!isBusy()) location.reload();
    else byId("says").textContent = texts.text("live.ended");
  }

  // Where reading takes long, it is done less often: the machine has other work.
  async function refresh() {
    const began = performance.now();
    try {
      const reply = await fetch(data.live.address);
      if (reply.ok) {
        const { pace, gpus, ...now } = await reply.json();
        Object.assign(data, { pace, gpus });
        Object.assign(data.live, now);
        if (!now.running) return end();
        show();
        document.querySelectorAll(".over-time .chart").forEach((one) => charts.draw(one, reportCharts));
      }
    } catch {
      byId("says").textContent = texts.text("live.lost");
    }
    setTimeout(refresh, Math.max(REFRESH_MS, 4 * (performance.now() - began)));
  }

  function start() {
    byId("reload").addEventListener("click", () => location.reload());
    texts.onChange(show);
    setTimeout(refresh, REFRESH_MS);
  }

  return { start };
})();
